#include "base/cpus.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

namespace pylrp {
namespace {

constexpr int kMaxThreads = 1024;

std::atomic<int> user_threads{0};

int affinity() {
#ifdef __linux__
  // A set as large as the kernel's, whatever that is.
  for (int processors = 1024; processors <= 1 << 18; processors *= 2) {
    const std::size_t bytes = CPU_ALLOC_SIZE(processors);
    cpu_set_t* const set = CPU_ALLOC(processors);
    const bool known = set != nullptr && sched_getaffinity(0, bytes, set) == 0;
    const int count = known ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (count > 0) {
      return count;
    }
  }
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// OMP_NUM_THREADS may be a list, one number a level of nesting; 0: not set, or no number.
int from_environment() {
  const char* const text = std::getenv("OMP_NUM_THREADS");
  const long count = text == nullptr ? 0 : std::strtol(text, nullptr, 10);
  return count < 1 ? 0 : static_cast<int>(std::min<long>(count, kMaxThreads));
}

// Two numbers of a file or of two files, quota and period; anything else ("max", -1, no file): no limit.
int worth(const std::string& quota_file, const std::string& period_file) {
  std::ifstream first(quota_file);
  long long quota = 0, period = 0;
  if (!(first >> quota)) {
    return 0;
  }
  if (period_file.empty()) {
    first >> period;
  } else {
    std::ifstream(period_file) >> period;
  }
  return quota <= 0 || period <= 0 ? 0 : static_cast<int>(std::min<long long>((quota - 1) / period + 1, kMaxThreads));
}

// The least of a group and its parents. Inside a container the path may be that of the host: then the root counts.
int least(const std::string& root, std::string path, const char* quota, const char* period) {
  int found = 0;
  for (;;) {
    const std::string at = root + path + "/";
    const int here = worth(at + quota, *period == '\0' ? std::string() : at + period);
    found = found == 0 || (here > 0 && here < found) ? here : found;
    if (path.empty()) {
      return found;
    }
    path.resize(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
}

}  // namespace

int quota_threads(const std::string& groups, const std::string& root) {
  std::istringstream lines(groups);
  int found = 0;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);  // number:controllers:path
    if (first == std::string::npos || second == std::string::npos) {
      continue;
    }
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    std::string path = line.substr(second + 1);
    path = path == "/" ? "" : path;
    int here = 0;
    if (controllers == ",,") {
      here = least(root, path, "cpu.max", "");
    } else if (controllers.find(",cpu,") != std::string::npos) {
      for (const char* const folder : {"/cpu", "/cpu,cpuacct"}) {
        here = std::max(here, least(root + folder, path, "cpu.cfs_quota_us", "cpu.cfs_period_us"));
      }
    }
    found = found == 0 || (here > 0 && here < found) ? here : found;
  }
  return found;
}

void set_default_threads(int count) { user_threads = count; }

int default_threads() {
  if (user_threads > 0) {
    return user_threads;
  }
  static const int wish = from_environment();  // read once: the environment must not change meanwhile
  if (wish > 0) {
    return wish;
  }
  int count = affinity();
#ifdef __linux__
  static const int quota = [] {  // read once: it takes some files
    std::ifstream file("/proc/self/cgroup");
    return quota_threads({std::istreambuf_iterator<char>(file), {}}, "/sys/fs/cgroup");
  }();
  count = quota > 0 ? std::min(count, quota) : count;
#endif
  return std::min(count, kMaxThreads);
}

}  // namespace pylrp
