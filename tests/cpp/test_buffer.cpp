// Workspaces: where their blocks lie, how much memory they hold and keep. Addresses that they have from the system are
// counted here, and what memory is behind them is asked of the system.
#include "base/buffer.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#include <sys/resource.h>
#endif

#include "base/block_watcher.hpp"
#include "base/parallel.hpp"
#include "check.hpp"
#include "fenced.hpp"

namespace {

constexpr std::size_t kUnit = std::size_t{64} << 10, kMegabyte = std::size_t{1} << 20;

// Ranges of addresses that the program has for large blocks.
struct Counted {
  std::mutex mutex;
  std::map<void*, std::size_t> ranges;

  // Bytes that are in memory, or of addresses where nobody can say.
  std::size_t resident() {
    const std::lock_guard<std::mutex> lock(mutex);
    std::size_t bytes = 0;
    for (const auto& [data, size] : ranges) {
#ifdef __linux__
      const std::size_t page = pylrp::kPage, step = std::size_t{1} << 30;
      for (std::size_t at = 0; at < size; at += step) {
        std::vector<unsigned char> there(std::min(step, size - at) / page);
        mincore(static_cast<char*>(data) + at, there.size() * page, there.data());
        bytes += page * static_cast<std::size_t>(
                            std::count_if(there.begin(), there.end(), [](unsigned char c) { return (c & 1) != 0; }));
      }
#else
      bytes += size;
#endif
    }
    return bytes;
  }
};
Counted& counted() {
  static Counted* const all = new Counted;  // threads give memory back until the very end
  return *all;
}

void watch(void* block, std::size_t bytes, bool comes) {
  Counted& all = counted();
  const std::lock_guard<std::mutex> lock(all.mutex);
  if (comes) {
    all.ranges[block] = bytes;
  } else {
    all.ranges.erase(block);
  }
}
[[maybe_unused]] const bool kWatched = [] {
  pylrp::watch_blocks(watch);
  return true;
}();

// Pages that this program has been given so far; 0 where nobody counts them.
long faults() {
#ifdef __linux__
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
#else
  return 0;
#endif
}

}  // namespace

namespace pylrp {
namespace {

// Memory comes and goes in pages: else a block that is in use holds all that came with it.
const bool kExact = Pages::in_parts();

// A workspace whose blocks are written and looked at again: they do not overlap.
class Watched {
 public:
  struct Taken {
    void* data;
    std::size_t bytes;
    unsigned char mark;
  };
  ~Watched() { give_all(); }
  void* take(std::size_t units) {
    std::size_t bytes = units > 4 ? units * kUnit - 100 : 4 * kUnit;  // sizes are rounded up
    Workspace* from = &home;
    void* const data = take_block(&bytes, &from);
    CHECK(bytes % kPage == 0 && bytes >= units * kUnit);
    used_.push_back({data, bytes, ++mark_});
    std::memset(data, mark_, bytes);
    most = std::max(most, in_use());
    CHECK(home.used() == in_use());
    CHECK(home.held() >= in_use());
    return data;
  }
  void give(std::size_t n) {
    const auto* const bytes = static_cast<const unsigned char*>(used_[n].data);
    CHECK(std::all_of(bytes, bytes + used_[n].bytes, [&](unsigned char c) { return c == used_[n].mark; }));
    give_block(used_[n].data, used_[n].bytes, &home);
    used_.erase(used_.begin() + static_cast<std::ptrdiff_t>(n));
  }
  void give_all() {
    while (!used_.empty()) {
      give(used_.size() - 1);
    }
  }
  std::size_t in_use() const {
    std::size_t bytes = 0;
    for (const Taken& taken : used_) {
      bytes += taken.bytes;
    }
    return bytes;
  }
  std::size_t used() const { return used_.size(); }
  void call(const std::vector<std::size_t>& units) {
    for (const std::size_t size : units) {
      take(size);
    }
    give_all();
  }

  Workspace home;
  std::size_t most = 0;

 private:
  std::vector<Taken> used_;
  unsigned char mark_ = 0;
};

// What was in use once serves other sizes: its parts join.
TEST(workspace_joins_what_is_free) {
  Watched workspace;
  workspace.call({40, 40, 40, 40});
  const std::size_t held = workspace.home.held();
  CHECK(!kExact || held == 160 * kUnit);
  for (const std::vector<std::size_t>& call :
       {std::vector<std::size_t>{160}, {20, 130}, {7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}, {40, 40, 40, 40}}) {
    workspace.call(call);
    CHECK(!kExact || workspace.home.held() == held);
  }
}

// A layer's output lies away from its input: layers of any sizes, one behind the other, need no more than the largest
// pair. The first call does not know yet how much that is.
TEST(workspace_of_a_chain_of_layers) {
  const std::vector<std::size_t> sizes{16, 120, 28, 124, 12, 116, 24};
  Watched workspace;
  for (int call = 0; call < 5; ++call) {
    const long before = faults();
    workspace.take(sizes[0]);
    for (std::size_t n = 1; n < sizes.size(); ++n) {
      workspace.take(sizes[n]);
      workspace.give(0);
    }
    workspace.give_all();
    CHECK(workspace.home.held() <= workspace.most + workspace.most / 4);
    CHECK(call < 3 || faults() - before < 10);
  }
}

// From the third of equal calls on the system is asked for nothing, whatever was called before.
TEST(workspace_keeps_what_equal_calls_need) {
  Watched workspace;
  const auto explain = [&](std::size_t scale) {  // values that stay, and work beside each of them
    for (const std::size_t size : {12, 36, 18, 50, 22, 31}) {
      workspace.take(size * scale);
      workspace.take(8 * scale);
      workspace.give(workspace.used() - 1);
    }
    while (workspace.used() > 0) {
      workspace.take(9 * scale);
      workspace.give(workspace.used() - 1);
      workspace.give(workspace.used() - 1);
    }
  };
  std::size_t resident = 0, held = 0;
  for (int call = 0; call < 12; ++call) {
    explain(call % 2 == 0 ? 4 : 1 + static_cast<std::size_t>(call) % 4);
    if (call >= 3) {
      CHECK(workspace.home.held() == held);
      CHECK(counted().resident() == resident);
    }
    held = workspace.home.held();
    resident = counted().resident();
  }
}

TEST(workspace_gives_back_what_few_calls_needed) {
  Watched workspace;
  workspace.call({400, 400});
  CHECK(!kExact || workspace.home.held() == 800 * kUnit);
  for (int call = 0; call < 40; ++call) {
    workspace.call({100, 50});
  }
  CHECK(workspace.home.held() <= 188 * kUnit);
  workspace.call({400, 400});  // and takes it again
  CHECK(!kExact || workspace.home.held() >= 800 * kUnit);
  CHECK(workspace.home.held() <= 900 * kUnit);
  for (int call = 0; call < 40; ++call) {
    workspace.call({300, 200});  // more than half: that may come again
  }
  CHECK(workspace.home.held() >= 800 * kUnit);
}

// All workspaces together keep so much; the one that was used last keeps longest.
TEST(workspaces_keep_so_much_together) {
  const std::size_t limit = kept_memory_limit();
  release_kept_memory();
  CHECK(kept_memory() == 0 && kept_memory_limit() == limit);
  {
    Watched first, second, third;
    first.call({160});
    second.call({160});
    CHECK(kept_memory() == 320 * kUnit);
    third.take(160);
    CHECK(kept_memory() == 320 * kUnit && third.home.held() == 160 * kUnit);  // in use is not kept
    first.call({100});
    limit_kept_memory(320 * kUnit);
    third.give(0);
    CHECK(first.home.held() == 160 * kUnit && second.home.held() < 160 * kUnit && third.home.held() == 160 * kUnit);
    limit_kept_memory(40 * kUnit);
    CHECK(kept_memory() <= 40 * kUnit && first.home.held() == 0 && second.home.held() == 0);
    first.take(160);
    CHECK(first.home.held() == 160 * kUnit);  // as much as a call needs, whatever is kept
    release_kept_memory();
    CHECK(kept_memory() == 0 && first.home.held() == 160 * kUnit && third.home.held() == 0);
    first.give_all();
    CHECK(kept_memory() <= 40 * kUnit);
    limit_kept_memory(limit);
    third.call({160, 20});
  }
  CHECK(kept_memory() == 0);
}

// Blocks of the thread that makes a call, not of its tasks; each goes back where it comes from.
TEST(workspace_as_home) {
  constexpr Index kSize = 1 << 20;
  constexpr std::size_t kBytes = sizeof(float) * kSize;
  Workspace first, second;
  Buffer<float> outlives;
  {
    const Home home(&first);
    outlives.reset(kSize);
    CHECK(first.used() == kBytes);
    const Buffer<float> elsewhere(kSize, &second);
    CHECK(first.used() == kBytes && second.used() == kBytes);
    {
      const Home none(nullptr);
      const Buffer<float> other(kSize);
      CHECK(first.used() == kBytes);
    }
    std::thread([] { const Buffer<float> other(kSize); }).join();
    parallel_for(4, Threads{2}, [](Index) { const Buffer<float> scratch(kSize); });
    CHECK(first.held() == kBytes);
    const Buffer<float> again(kSize);
    CHECK(first.used() == 2 * kBytes);
  }
  const Buffer<float> outside(kSize);
  CHECK(first.used() == kBytes && second.used() == 0);
  outlives = Buffer<float>();
  CHECK(first.used() == 0);
}

// Whatever is taken and given: blocks don't overlap, and memory stays within a quarter above the most that was in
// use.
TEST(workspace_footprint) {
  const std::size_t before = counted().resident();
  for (unsigned seed = 0; seed < 12; ++seed) {
    Watched workspace;
    Random random(seed);
    const double most = random(4, 60);
    const std::size_t at_once = static_cast<std::size_t>(random(2, 12));
    for (int step = 0; step < 300; ++step) {
      check::context = "seed " + std::to_string(seed) + ", step " + std::to_string(step);
      if (workspace.used() == at_once || (workspace.used() > 0 && random.chance(0.5))) {
        workspace.give(static_cast<std::size_t>(random(0, static_cast<double>(workspace.used()))));
      } else {
        workspace.take(static_cast<std::size_t>(std::floor(random(4, 4 + most))));
      }
      const std::size_t limit = workspace.most + workspace.most / 4;
      CHECK(!kExact || workspace.home.held() <= limit);
      if (step % 50 == 49) {
        CHECK(!kExact ||
              counted().resident() <= before + limit + kHugePage);  // the system may hand out more than is asked for
      }
    }
  }
  CHECK(counted().resident() <= before);
}

// Buffers that share a workspace; the same block is never in use twice.
TEST(workspace_of_buffers) {
  constexpr Index kSize = 1 << 20;
  Workspace workspace, empty;
  void *mine = nullptr, *other = nullptr;
  {
    const Buffer<float> first(kSize, &workspace), second(kSize, &workspace), small(100, &workspace);
    CHECK(first.data() != second.data());
    CHECK(reinterpret_cast<std::uintptr_t>(first.data()) % 64 == 0);
    mine = first.data();
    other = second.data();
  }
  {
    Buffer<float> same(kSize - 1, &workspace);  // blocks have few different sizes
    const Buffer<float> again(kSize, &workspace), more(kSize, &workspace);
    CHECK(!kExact ||
          ((same.data() == mine || same.data() == other) && (again.data() == mine || again.data() == other)));
    CHECK(same.data() != again.data() && more.data() != same.data() && more.data() != again.data());
    Buffer<float> moved = std::move(same);  // and goes workspace from there
    same = Buffer<float>(kSize, &empty);
    const void* const data = moved.data();
    moved.reset(10);
    const Buffer<float> back(kSize, &workspace);
    CHECK(back.data() == data);
  }
  std::atomic<int> clashes{0};
  std::vector<std::thread> workers;
  for (int w = 0; w < 4; ++w) {
    workers.emplace_back([&, w] {
      for (int round = 0; round < 50; ++round) {
        const Buffer<int> block(kSize, &workspace);
        int* const at = block.data() + round * 64;
        *at = w;
        std::this_thread::yield();
        clashes += *at == w ? 0 : 1;
      }
    });
  }
  for (std::thread& worker : workers) {
    worker.join();
  }
  CHECK(clashes == 0);
}

}  // namespace
}  // namespace pylrp
