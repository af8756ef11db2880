// Workspaces: which block they hand out, and how much memory they hold. What they have from the system is counted
// here: this program watches large blocks.
#include "base/buffer.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "base/block_watcher.hpp"
#include "check.hpp"
#include "fenced.hpp"

namespace {

constexpr std::size_t kUnit = std::size_t{256} << 10;  // large blocks are multiples of it

// Large blocks that the program has, each with a number of its own: addresses come again.
struct Counted {
  struct Block {
    std::size_t bytes, number;
  };
  std::mutex mutex;
  std::map<void*, Block> blocks;
  std::size_t bytes = 0, numbers = 0;

  std::size_t number(void* block) {  // 0: gone
    const std::lock_guard<std::mutex> lock(mutex);
    const auto at = blocks.find(block);
    return at == blocks.end() ? 0 : at->second.number;
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
    all.blocks[block] = {bytes, ++all.numbers};
    all.bytes += bytes;
  } else if (const auto at = all.blocks.find(block); at != all.blocks.end()) {  // it may have come before we looked
    all.bytes -= at->second.bytes;
    all.blocks.erase(at);
  }
}
[[maybe_unused]] const bool kWatched = [] {
  pylrp::watch_blocks(watch);
  return true;
}();

}  // namespace

namespace pylrp {
namespace {

// A workspace with a record of the blocks that are in use, and of those that it keeps.
class Watched {
 public:
  struct Block {
    void* data;
    std::size_t bytes, number;
  };
  struct Taken : Block {
    bool fresh;
  };
  ~Watched() {
    while (!used_.empty()) {
      give(0);
    }
  }
  Taken take(std::size_t units, Use use = Use::kHeld) {
    forget_freed();
    const std::size_t wanted = units * kUnit;
    most_ = std::max(most_, in_use() + wanted);
    const std::size_t limit = most_ + most_ / 16;
    Block block{nullptr, units > 1 ? wanted - 100 : wanted, 0};  // sizes are rounded up
    block.data = take_block(&block.bytes, &home_, use);
    block.number = counted().number(block.data);
    const auto at = std::find_if(kept_.begin(), kept_.end(), [&](const Block& b) { return b.number == block.number; });
    const Taken taken{block, at == kept_.end()};
    const bool room = held() + wanted <= limit;
    const std::size_t largest = room                ? wanted + wanted / 4
                                : use == Use::kHeld ? 2 * wanted
                                                    : std::numeric_limits<std::size_t>::max();
    const auto fits = [&](const Block& b) { return b.bytes >= wanted && b.bytes <= largest; };
    CHECK(taken.bytes >= wanted);
    if (taken.fresh) {
      CHECK(taken.bytes == wanted);
      CHECK(std::none_of(kept_.begin(), kept_.end(), fits));
    } else {
      CHECK(taken.bytes == at->bytes);  // its own size
      CHECK(std::none_of(kept_.begin(), kept_.end(), [&](const Block& b) { return fits(b) && b.bytes < taken.bytes; }));
      CHECK(taken.bytes <= largest);
      kept_.erase(at);
    }
    used_.push_back(block);
    const std::size_t kept = kept_.size();
    forget_freed();
    freed += static_cast<int>(kept - kept_.size());
    CHECK(kept_.size() == kept || taken.fresh);  // nothing is freed for a block that is reused
    CHECK(held() <= limit);
    return taken;
  }
  void give(std::size_t n) {
    kept_.push_back(used_[n]);
    used_.erase(used_.begin() + static_cast<std::ptrdiff_t>(n));
    give_block(kept_.back().data, kept_.back().bytes, &home_);
    forget_freed();
  }
  void give_all() {
    while (!used_.empty()) {
      give(0);
    }
  }
  std::size_t in_use() const { return sum(used_); }
  std::size_t held() const { return sum(used_) + sum(kept_); }
  std::size_t kept() const { return kept_.size(); }
  std::size_t used() const { return used_.size(); }

  int freed = 0;  // blocks that were given back to the system for others

 private:
  static std::size_t sum(const std::vector<Block>& blocks) {
    std::size_t bytes = 0;
    for (const Block& block : blocks) {
      bytes += block.bytes;
    }
    return bytes;
  }
  void forget_freed() {
    const auto gone = [](const Block& b) { return counted().number(b.data) != b.number; };
    kept_.erase(std::remove_if(kept_.begin(), kept_.end(), gone), kept_.end());
  }

  Workspace home_;
  std::vector<Block> used_, kept_;
  std::size_t most_ = 0;
};

TEST(workspace_takes_the_best_fit) {
  Watched workspace;
  std::vector<void*> blocks;
  for (const std::size_t units : {10, 8, 20, 9, 40}) {
    blocks.push_back(workspace.take(units).data);
  }
  workspace.give_all();
  CHECK(workspace.kept() == 5);
  CHECK(workspace.take(9).data == blocks[3] && workspace.take(9).data == blocks[0]);    // 9, then 10
  CHECK(workspace.take(8).data == blocks[1]);                                           // 8
  CHECK(workspace.take(16).data == blocks[2] && workspace.take(32).data == blocks[4]);  // a quarter more, just
  CHECK(workspace.kept() == 0);
}

TEST(workspace_gives_a_large_block_to_work_but_not_to_what_is_held) {
  Watched workspace;
  void* const block = workspace.take(40).data;
  workspace.give_all();
  CHECK(workspace.take(10, Use::kWork).data == block);  // there is no room for another
  workspace.give_all();
  CHECK(workspace.take(10, Use::kHeld).fresh && workspace.freed == 1);
}

TEST(workspace_grows_while_there_is_room) {
  Watched workspace;
  workspace.take(100);
  workspace.take(20);
  workspace.give(1);
  // 120 units were in use; 20 kept and 7 more are within 127.5, another one is not.
  CHECK(workspace.take(7).fresh && workspace.kept() == 1);
  // 20 would be wasted on it.
  CHECK(workspace.take(1).fresh && workspace.kept() == 0 && workspace.freed == 1);
  workspace.give_all();
  CHECK(workspace.kept() == 3);
}

TEST(workspace_makes_room) {
  Watched workspace;
  for (int i = 0; i < 4; ++i) {
    workspace.take(10);
  }
  workspace.give_all();
  // All are too small: some go, so that what is held stays within a sixteenth of the most that was used.
  CHECK(workspace.take(20).fresh && workspace.kept() == 2 && workspace.freed == 2);
  CHECK(workspace.held() == 40 * kUnit);
  CHECK(workspace.take(100).fresh && workspace.kept() == 0 && workspace.freed == 4);
  CHECK(workspace.held() == 120 * kUnit);
}

// Nothing is kept beyond 192 MB, or 256 blocks; all of it goes with the workspace.
TEST(workspace_keeps_so_much) {
  const std::size_t before = counted().bytes;
  {
    Watched workspace;
    for (int i = 0; i < 7; ++i) {
      workspace.take(128);
    }
    workspace.give_all();
    CHECK(workspace.kept() == 6 && workspace.held() == std::size_t{192} << 20);
  }
  CHECK(counted().bytes == before);
  {
    Watched workspace;
    for (int i = 0; i < 258; ++i) {
      workspace.take(1);
    }
    workspace.give_all();
    CHECK(workspace.kept() == 256 && counted().bytes == before + 256 * kUnit);
  }
  CHECK(counted().bytes == before);
}

// Sizes that repeat, as those of a network's values do, and sizes that do not: what take() checks holds each time.
TEST(workspace_footprint) {
  int freed = 0, reused = 0;
  for (unsigned seed = 0; seed < 12; ++seed) {
    Watched workspace;
    Random random(seed);
    const double most = random(4, 60);
    const std::size_t at_once = static_cast<std::size_t>(random(2, 12));
    for (int step = 0; step < 400; ++step) {
      check::context = "seed " + std::to_string(seed) + ", step " + std::to_string(step);
      if (workspace.used() == at_once || (workspace.used() > 0 && random.chance(0.5))) {
        workspace.give(static_cast<std::size_t>(random(0, static_cast<double>(workspace.used()))));
      } else {
        const double size = std::floor(random(1, most));
        const auto units = static_cast<std::size_t>(seed % 2 == 0 ? size : 1 + std::floor(size / 8) * 5);
        reused += workspace.take(units, random.chance(0.3) ? Use::kWork : Use::kHeld).fresh ? 0 : 1;
      }
    }
    freed += workspace.freed;
  }
  CHECK(freed > 100 && reused > 500);
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
    const Buffer<float> outside(kSize), elsewhere(kSize, &empty);
    CHECK(outside.data() != mine && outside.data() != other && elsewhere.data() != mine && elsewhere.data() != other);
    Buffer<float> same(kSize - 1, &workspace);  // blocks have few different sizes
    const Buffer<float> again(kSize, &workspace), more(kSize, &workspace);
    CHECK((same.data() == mine || same.data() == other) && (again.data() == mine || again.data() == other));
    CHECK(same.data() != again.data() && more.data() != mine && more.data() != other);
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
