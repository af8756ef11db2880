// How a loop is shared, and why that is right.
//
// A caller leases a *slot*, which lives as long as the pool, and recruits idle helpers for it. A loop is published in
// the slot's *ticket*: the number of the loop (40 bits) and how many tasks were taken from its front and from its back
// (12 bits each; loops of more tasks are cut into groups). The thread that adds one to a count holds the task that was
// next there. After its own last task the caller closes the ticket, so that no more can be taken, reads off how many
// were, and waits until that many are done. A helper that comes late, or has lost its processor before it held a task,
// touches nothing but the slot; the caller does not wait for it.
//
// The caller takes tasks from the front, helpers from the back, so that with two threads each has one stretch, the same
// in loop after loop: what a task reads was mostly written by its own thread. Processors that share no cache pay for
// the other's lines about as for memory.
//
// Memory order:
//   publish   The caller stores `done`, `end`, `tasks` and the like, then the ticket with release.
//   take      A helper loads the ticket with acquire. What it reads is the publishing store of a loop or a later
//             compare-exchange, which continues that store's release sequence: all that the caller wrote before
//             publishing (also the operands of the tasks) is visible. Between this load and the compare-exchange it
//             loads `end`, `tasks` and so on, which belong to that loop or to a later one. Those of a later one were
//             stored with release after the loop was closed, and are loaded with acquire: a thread that sees one of
//             them sees the loop closed, so that its exchange fails, as no number of a loop comes twice (at a million
//             loops a second it would after 12 days; a thread would have to rest exactly that long between two
//             instructions). So a thread that succeeds has read what belongs to its task. `crew` is loaded behind the
//             ticket: a helper whose lease is over finds the new lease there if it has seen a ticket of the new lessee.
//   close     The caller exchanges the ticket, relaxed: the order of the ticket's modifications alone decides which
//             thread was first.
//   done      A helper adds to `done` after each task with (at least) release; the caller reads it with acquire. Every
//             addition continues the release sequences of those before, so with the last one the results of all tasks
//             are visible. `done` can be set back by the next publication, since nobody else adds then.
//   sleep     Sleeper: asleep = true, then look once more at the reason to be awake. Waker: change the reason, then
//             look at `asleep`. These are sequentially consistent: in their single order either the sleeper sees the
//             reason or the waker sees the sleeper. The waker takes the flag back and posts the semaphore. Where the
//             sleeper has seen the reason itself that post is left over; every wait is in a loop that looks again.
//   recruit   post: idle -> claimed (acquire: after what the helper did when it was last used), then the slot, after
//             the lease was written (the store is sequentially consistent, and so a release).
//
// A helper that loses its processor in the middle of a loop's last task keeps its caller waiting for a time slice of
// the system, some milliseconds. That can't be helped, but it need not happen in every call: where another program
// wants the processor so often that the caller waits longer than the helper has worked for it (`Balance`), the helper
// stays away for a while, for sixteen times as long as was lost. The caller looks for helpers between its own tasks, so
// that a long loop gets them back.
//
// A helper that sleeps is kept off its caller's processor when it is woken (`Placement`): some systems let it wait
// behind the caller for milliseconds though another processor is idle.
//
// No lock is shared with a helper. Callers share one lock, to start new threads, and only try it.
#include "base/pool.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <system_error>
#include <thread>

#include "base/error.hpp"
#include "base/placement.hpp"
#include "base/semaphore.hpp"
#include "base/system.hpp"
#include "base/waiting.hpp"

namespace pylrp {
namespace {

constexpr std::size_t kLine = 64;
constexpr int kCountBits = 12, kLoopBits = 2 * kCountBits, kCrewBits = 16;
constexpr std::uint64_t kClosed = (std::uint64_t{1} << kLoopBits) - 1;
constexpr std::uint64_t kMostGroups = (std::uint64_t{1} << kCountBits) - 2;  // no count runs over, nor is it kClosed

// What a ticket says of its loop.
std::uint64_t from_front(std::uint64_t ticket) { return ticket & ((std::uint64_t{1} << kCountBits) - 1); }
std::uint64_t from_back(std::uint64_t ticket) { return from_front(ticket >> kCountBits); }
std::uint64_t taken(std::uint64_t ticket) { return from_front(ticket) + from_back(ticket); }

std::atomic<unsigned> forks{0};
thread_local bool busy = false;

}  // namespace

struct Slot {
  // In one line: a helper that looks for a task waits for it once.
  alignas(kLine) std::atomic<std::uint64_t> ticket{kClosed};
  std::atomic<std::uint64_t> crew{0};     // lease << kCrewBits | helpers
  std::atomic<std::uint64_t> end{0};      // groups
  std::atomic<Index> count{0}, grain{1};  // tasks, tasks a group
  std::atomic<Tasks*> tasks{nullptr};
  alignas(kLine) std::atomic<std::uint64_t> done{0};  // groups, by helpers
  std::atomic<bool> asleep{false};                    // the caller
  Semaphore wake;
  std::atomic<bool> leased{false};

  struct Group {
    Tasks* tasks;
    Index begin, end;
  };
  bool take(std::uint64_t lease, bool by_caller, Group* group) {
    std::uint64_t now = ticket.load(std::memory_order_acquire);
    for (;;) {
      constexpr auto acquire = std::memory_order_acquire;
      const std::uint64_t groups = end.load(acquire);
      if (crew.load(acquire) >> kCrewBits != lease || taken(now) >= groups) {
        return false;
      }
      const std::uint64_t at = by_caller ? from_front(now) : groups - 1 - from_back(now);
      const std::uint64_t one = by_caller ? 1 : std::uint64_t{1} << kCountBits;
      const Index size = grain.load(acquire), first = static_cast<Index>(at) * size;
      *group = {tasks.load(acquire), first, std::min(count.load(acquire), first + size)};
      if (ticket.compare_exchange_weak(now, now + one, std::memory_order_acquire)) {
        return true;
      }
    }
  }
  bool closed() const { return (ticket.load(std::memory_order_relaxed) & kClosed) == kClosed; }
  static void run(const Group& group, bool by_caller) {
    for (Index i = group.begin; i < group.end && !group.tasks->stopped(); ++i) {
      group.tasks->run(i, by_caller);
    }
  }
  // A helper leaves before the lease is over.
  void leave(std::uint64_t lease) {
    std::uint64_t now = crew.load(std::memory_order_relaxed);
    while (now >> kCrewBits == lease && !crew.compare_exchange_weak(now, now - 1, std::memory_order_relaxed)) {
    }
  }
};

namespace {

struct alignas(kLine) Helper {
  std::atomic<Slot*> post{nullptr};  // null: idle
  std::atomic<std::uint64_t> lease{0};
  std::atomic<bool> asleep{false};
  std::atomic<Loss::Clock::rep> away{0};  // until then; 0: it is not
  Placement placement;
  Semaphore wake;
  std::thread thread;
};

}  // namespace

class Pool {
 public:
  static Pool* get() {
    Pool* pool = current_.load(std::memory_order_acquire);
    if (pool == nullptr) {
      Pool* const made = new Pool;
      if (current_.compare_exchange_strong(pool, made, std::memory_order_acq_rel)) {
        return made;
      }
      delete made;
    }
    return pool;
  }
  static void forget() { current_.store(nullptr); }  // in a forked child: its threads are not there

  Slot* lease() {
    for (Slot& slot : slots_) {
      if (!slot.leased.load(std::memory_order_relaxed) && !slot.leased.exchange(true, std::memory_order_acquire)) {
        return &slot;
      }
    }
    return nullptr;
  }

  void recruit(Slot* slot, std::uint64_t lease, int wanted, int most) {
    const int count = count_.load(std::memory_order_acquire);
    for (int i = 0; i < count && wanted > 0; ++i) {
      wanted -= assign(*helpers_[i], slot, lease) ? 1 : 0;
    }
    if (wanted > 0 && count < std::min(most, kMostHelpers)) {
      start(slot, lease, wanted, std::min(most, kMostHelpers));
    }
  }

  // Before the code is unloaded, at the latest at the end of the process. Callers that are still there work alone.
  static void stop() {
    Pool* const pool = current_.load();
    if (pool == nullptr || pool->process_ != process_number()) {
      return;
    }
    const std::lock_guard<std::mutex> lock(pool->starting_);
    pool->stopping_.store(true);
    for (int i = 0; i < pool->count_.load(); ++i) {
      pool->helpers_[i]->wake.post();
    }
    for (int i = 0; i < pool->count_.load(); ++i) {
      pool->helpers_[i]->thread.join();
    }
  }

 private:
  static constexpr int kMostHelpers = 255, kSlots = 64;

  static bool is_away(Helper* helper) {
    const Loss::Clock::rep until = helper->away.load(std::memory_order_relaxed);
    return until != 0 && Loss::Clock::now().time_since_epoch().count() < until;
  }

  bool assign(Helper& helper, Slot* slot, std::uint64_t lease) {
    Slot* idle = nullptr;
    if (helper.post.load(std::memory_order_relaxed) != nullptr || is_away(&helper) ||
        !helper.post.compare_exchange_strong(idle, &claimed_, std::memory_order_acquire)) {
      return false;
    }
    slot->crew.fetch_add(1, std::memory_order_relaxed);
    helper.lease.store(lease, std::memory_order_relaxed);
    helper.post.store(slot);
    if (helper.asleep.load() && helper.asleep.exchange(false)) {
      helper.placement.keep_off_here();
      helper.wake.post();
    }
    return true;
  }

  void start(Slot* slot, std::uint64_t lease, int wanted, int most) {
    const std::unique_lock<std::mutex> lock(starting_, std::try_to_lock);
    if (!lock.owns_lock() || stopping_.load()) {
      return;
    }
    const SignalsBlocked blocked;  // signals are for the threads of the program
    int count = count_.load(std::memory_order_relaxed);
    try {
      for (; wanted > 0 && count < most; --wanted) {
        auto* const helper = new Helper;
        helpers_[count] = helper;
        assign(*helper, slot, lease);
        helper->thread = std::thread([this, helper] { serve(helper); });
        count_.store(++count, std::memory_order_release);
      }
    } catch (const std::exception&) {  // no more threads or memory: fewer do
      if (helpers_[count] != nullptr) {
        slot->leave(lease);
        delete helpers_[count];
        helpers_[count] = nullptr;
      }
    }
  }

  void serve(Helper* me) {
#if defined(__linux__)
    pthread_setname_np(pthread_self(), "pylrp");
#endif
    busy = true;
    me->placement.begin();
    Patience patience;
    Loss loss;
    while (!stopping_.load(std::memory_order_relaxed)) {
      Slot* const slot = me->post.load(std::memory_order_acquire);
      if (slot != nullptr && slot != &claimed_) {
        me->placement.go_anywhere();
        const Loss::Clock::duration lost = help(slot, me->lease.load(std::memory_order_relaxed), &patience, &loss);
        if (lost > Loss::Clock::duration::zero()) {
          constexpr Loss::Clock::duration kLongest = std::chrono::seconds(1);
          const auto until = Loss::Clock::now() + std::min(16 * lost, kLongest);
          me->away.store(until.time_since_epoch().count(), std::memory_order_relaxed);
        }
        me->post.store(nullptr, std::memory_order_release);
      } else if (!patience.wait()) {
        me->asleep.store(true);
        if (me->post.load() == nullptr && !stopping_.load()) {
          me->wake.wait();
        }
        me->asleep.store(false);
        patience.renew();
      }
    }
    me->post.store(&claimed_);  // nobody can have it any more
  }

  // Until the lease is over, or patience, or the caller waited too long while the processor was lost: then for how
  // long.
  Loss::Clock::duration help(Slot* slot, std::uint64_t lease, Patience* patience, Loss* loss) {
    Slot::Group group;
    while (slot->crew.load(std::memory_order_relaxed) >> kCrewBits == lease &&
           !stopping_.load(std::memory_order_relaxed)) {
      if (slot->take(lease, false, &group)) {
        loss->begin();
        Slot::run(group, false);
        const bool awaited = slot->closed();  // still of this loop: its caller waits for this task
        slot->done.fetch_add(1);
        const Loss::Clock::duration lost = loss->end(Loss::Clock::now(), awaited);
        if (slot->asleep.load() && slot->asleep.exchange(false)) {
          slot->wake.post();
        }
        patience->renew();
        if (lost > Loss::Clock::duration::zero()) {
          slot->leave(lease);
          return lost;
        }
      } else {
        if (!patience->wait()) {
          slot->leave(lease);
          return {};
        }
      }
    }
    slot->leave(lease);  // at the end of the process: the caller goes on alone
    return {};
  }

  static std::atomic<Pool*> current_;
  Slot slots_[kSlots];
  Slot claimed_;                        // stands for: a thread is about to post the helper
  Helper* helpers_[kMostHelpers] = {};  // for ever: a caller may look at any of them
  std::atomic<int> count_{0};
  std::mutex starting_;
  std::atomic<bool> stopping_{false};
  const long process_ = process_number();
};

std::atomic<Pool*> Pool::current_{nullptr};

namespace {

struct Lifetime {
  Lifetime() {
    after_fork_in_child([] {
      forks.fetch_add(1);
      Pool::forget();
    });
  }
  ~Lifetime() {
    if (kThreadsOutliveStatics) {
      Pool::stop();
    }
  }
} lifetime;

}  // namespace

bool Team::in_task() { return busy; }

Team::Team(int helpers) : helpers_(helpers), forks_(forks.load()), pool_(Pool::get()), slot_(pool_->lease()) {
  if (slot_ != nullptr) {
    lease_ = slot_->crew.load(std::memory_order_relaxed) >> kCrewBits;
  }
}

Team::~Team() {
  if (slot_ != nullptr) {
    slot_->crew.store((lease_ + 1) << kCrewBits, std::memory_order_relaxed);
    slot_->leased.store(false, std::memory_order_release);
  }
}

void Team::call(Index left) {
  const int here = static_cast<int>(slot_->crew.load(std::memory_order_relaxed) & ((1 << kCrewBits) - 1));
  const int wanted = static_cast<int>(std::min<Index>(helpers_, left)) - here;
  if (wanted > 0) {
    pool_->recruit(slot_, lease_, wanted, helpers_);
  }
}

void Team::run(Index count, Tasks* tasks) {
  constexpr auto relaxed = std::memory_order_relaxed, release = std::memory_order_release;
  busy = true;
  const Slot::Group all{tasks, 0, count};
  if (slot_ == nullptr || forks_ != forks.load()) {
    Slot::run(all, true);
    busy = false;
    return;
  }
  Slot& slot = *slot_;
  const auto most = static_cast<Index>(kMostGroups);
  const Index grain = (count + most - 1) / most, groups = (count + grain - 1) / grain;
  slot.done.store(0, relaxed);
  slot.count.store(count, release);
  slot.grain.store(grain, release);
  slot.end.store(static_cast<std::uint64_t>(groups), release);
  slot.tasks.store(tasks, release);
  const std::uint64_t loop = (slot.ticket.load(relaxed) >> kLoopBits) + 1;
  slot.ticket.store(loop << kLoopBits, release);
  for (Slot::Group group{}; !tasks->stopped() && slot.take(lease_, true, &group);) {
    call(groups - static_cast<Index>(taken(slot.ticket.load(relaxed))));
    Slot::run(group, true);
  }
  const std::uint64_t helped = from_back(slot.ticket.exchange(loop << kLoopBits | kClosed, relaxed));
  busy = false;
  Patience patience;
  while (slot.done.load(std::memory_order_acquire) != helped) {
    if (forks_ != forks.load()) {
      throw Error("the process was forked in the middle of a call: the child can't finish it");
    }
    if (!patience.wait()) {
      slot.asleep.store(true);
      if (slot.done.load() != helped) {
        slot.wake.wait();
      }
      slot.asleep.store(false);
      patience.renew();
    }
  }
}

}  // namespace pylrp
