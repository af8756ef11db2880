// How many threads a call uses that was not told: the processors that this process may use.
#pragma once

#include <string>

namespace pylrp {

// set_default_threads; else OMP_NUM_THREADS; else the processors of the affinity, at most what the cgroup's quota pays.
int default_threads();
void set_default_threads(int count);  // 0: as at the start

// How many processors the CPU quota of a control group is worth, rounded up; 0: there is none. `groups` is the text of
// /proc/self/cgroup, `root` where the hierarchies are mounted (/sys/fs/cgroup). Versions 1 and 2, parents included.
int quota_threads(const std::string& groups, const std::string& root);

}  // namespace pylrp
