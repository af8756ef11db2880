// Relevance in the place of the activation that it is the last to need, shares in the place of relevance: when the
// engine lets a layer do so, and that it changes no bit.
#include <algorithm>

#include "check.hpp"
#include "rich_net.hpp"

namespace pylrp {
namespace {

using Chosen = std::vector<std::size_t>;
const Geometry kSame{{1, 6, 6}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}, kPixels{{1, 6, 6}, {1, 1, 1}};

// Convolutions one above the other, of every kind, with a ReLU between two.
template <class T>
struct Tower {
  Net<T> net{{72}};
  std::size_t first, first_relu, second, second_relu, third, third_relu, top;

  explicit Tower(const char* rule, const char* lowest = nullptr) {
    first = net.conv(0, kSame.shape(2, 20), lowest != nullptr ? lowest : rule);
    first_relu = net.relu(first);
    second = net.conv(first_relu, kPixels.shape(20, 18), rule);
    second_relu = net.activation(second, {ActivationKind::kLeakyReLU, 0.25});  // both signs go in above
    third = net.conv(second_relu, kSame.shape(18, 18, 18), rule);
    third_relu = net.relu(third);
    top = net.conv(third_relu, kPixels.shape(18, 5), rule);
  }
  // Whether relevance took the place of the input of second, third, top.
  std::vector<bool> replaced(const Question<T>& question) {
    const Inputs<T> inputs(net, 1, 2, 1);
    ask(net, net.plan(), inputs, question);
    CHECK(!net.seen(first).replaced);  // the caller's
    return {net.seen(second).replaced == 1, net.seen(third).replaced == 1, net.seen(top).replaced == 1};
  }
};
using Where = std::vector<bool>;

TEST(relevance_takes_the_place_of_what_it_needs_last) {
  Tower<float> tower("z+");
  const auto& seen = [&](std::size_t value) { return tower.net.seen(value); };
  check::context = "one target";
  CHECK(tower.replaced({tower.top}) == (Where{true, true, true}));
  CHECK(seen(tower.top).spare && seen(tower.third).spare && seen(tower.second).spare && seen(tower.first).spare);
  CHECK(tower.replaced({tower.top, 1, {}, {0}}) == (Where{true, true, true}));
  check::context = "two targets";
  CHECK(tower.replaced({tower.top, 2}) == (Where{false, false, false}));
  CHECK(seen(tower.third).spare);
  check::context = "a value is wanted";
  CHECK(tower.replaced({tower.top, 1, {tower.first_relu}}) == (Where{false, true, true}));
  CHECK(tower.replaced({tower.top, 1, {tower.third_relu, tower.second}}) == (Where{true, true, false}));
  check::context = "relevance is asked for";
  CHECK(tower.replaced({tower.top, 1, {}, {tower.second_relu}}) == (Where{true, false, true}));
  CHECK(seen(tower.second).spare && seen(tower.third).spare);
  CHECK(tower.replaced({tower.top, 1, {}, {tower.second}}) == (Where{true, true, true}));
  CHECK(!seen(tower.second).spare);
  check::context = "the start";
  CHECK(tower.replaced({tower.third, 1, {}, {tower.third}}) == (Where{true, true, true}));  // the top: seen before
  CHECK(!seen(tower.third).spare);
  check::context = "rules that do not read their input";
  CHECK(Tower<float>("w^2").replaced({Tower<float>("w^2").top}) == (Where{false, false, false}));
}

// The ReLU behind a layer stands for its output: it is read once more.
TEST(relevance_spares_what_stands_for_an_output) {
  Tower<float> all("epsilon");  // a leaky ReLU stands for nothing
  CHECK(all.replaced({all.top}) == (Where{false, true, false}));
  Tower<float> not_below("epsilon", "z+");
  CHECK(not_below.replaced({not_below.top}) == (Where{true, true, false}));
  Tower<float> rest("alpha-beta");  // not of a depthwise layer
  CHECK(rest.replaced({rest.top}) == (Where{false, true, true}));
}

// A value that two layers read is the second one's, but what the first sent lies elsewhere by then.
TEST(relevance_spares_values_with_two_readers) {
  for (const bool direct : {false, true}) {
    Net<double> net{{72}};
    const std::size_t below = net.relu(net.conv(0, kSame.shape(2, 17), "z+"));
    const std::size_t left = net.conv(below, kPixels.shape(17, 17), "alpha-beta");
    const std::size_t right = net.conv(direct ? below : net.relu(below), kSame.shape(17, 17, 17), "z+");
    const std::size_t sum = net.sum({left, right, below});
    const std::size_t top = net.conv(sum, kPixels.shape(17, 3), "z+");
    const Inputs<double> inputs(net, 1, 2, 1);
    const Plan<double> plan = net.plan();
    const Answer<double> found = ask(net, plan, inputs, {top, 1, {}, {0}});
    CHECK(net.seen(top).replaced && !net.seen(left).replaced && net.seen(right).replaced == (direct ? 0 : 1));
    const Answer<double> expected = ask(net, plan, inputs, {top, 1, net.all_values(), net.all_values()});
    CHECK(!net.seen(top).replaced && !net.seen(right).replaced);
    CHECK(same_bits(found.relevance[0], expected.relevance[0]) && same_bits(found.ledger, expected.ledger));
  }
}

// Each input of a sum is looked at for itself: the caller's, one read twice, one that a layer below reads, too.
TEST(relevance_takes_the_places_of_the_inputs_of_a_sum) {
  Net<float> net{{72}};
  const std::size_t left = net.relu(net.conv(0, kPixels.shape(2, 2), "z+"));
  const std::size_t right = net.relu(net.conv(left, kPixels.shape(2, 2), "z+"));
  const std::size_t last = net.relu(net.conv(0, kSame.shape(2, 2), "epsilon"));
  const std::size_t sum = net.sum({0, right, left, last, right});
  const std::size_t other = net.relu(net.conv(sum, kPixels.shape(2, 2), "z+"));
  const std::size_t both = net.sum({other, sum});
  const std::size_t top = net.conv(both, kPixels.shape(2, 3), "z+");
  const Inputs<float> inputs(net, 1, 2, 1);
  const Plan<float> plan = net.plan();
  const Answer<float> found = ask(net, plan, inputs, {top, 1, {}, {0}});
  CHECK(net.seen(sum).replaced == 0);  // of last epsilon's own layer needs the ReLU's output
  CHECK(net.seen(both).replaced == 1 && net.seen(top).replaced == 1);
  const Answer<float> expected = ask(net, plan, inputs, {top, 1, net.all_values(), net.all_values()});
  CHECK(net.seen(both).replaced == 0);
  CHECK(same_bits(found.relevance[0], expected.relevance[0]) && same_bits(found.ledger, expected.ledger));
  Net<float> plain{{72}};
  const std::size_t a = plain.relu(plain.conv(0, kSame.shape(2, 2), "z+"));
  const std::size_t b = plain.relu(plain.conv(0, kSame.shape(2, 2), "z+"));
  const std::size_t of_both = plain.sum({a, b});
  const Inputs<float> its(plain, 1, 2, 1);
  const Plan<float> its_plan = plain.plan();
  const Answer<float> over = ask(plain, its_plan, its, {of_both, 1, {}, {0}});
  CHECK(plain.seen(of_both).replaced == 3);
  ask(plain, its_plan, its, {of_both, 1, {a}, {b}});
  CHECK(plain.seen(of_both).replaced == 0);
  ask(plain, its_plan, its, {of_both, 1, {}, {b}});
  CHECK(plain.seen(of_both).replaced == 1);
  const Answer<float> beside = ask(plain, its_plan, its, {of_both, 1, {}, plain.all_values()});
  CHECK(same_bits(over.relevance[0], beside.relevance[0]) && same_bits(over.ledger, beside.ledger));
}

// In place or not, for each rule, with masks and several threads, from each value; one of two targets.
template <class T>
void check_same_bits() {
  for (const char* rule : {"z+", "alpha-beta", "epsilon", "gamma", "w^2", "z-box", "where zero"}) {
    Tower<T> tower(rule);
    Net<T>& net = tower.net;
    const Plan<T> plan = net.plan(2);
    for (const Index batch : {1, 3}) {
      const Inputs<T> inputs(net, 1, batch, 2);
      const std::vector<std::vector<ChannelMask>> masks{
          {},
          {{tower.first_relu, std::vector<bool>(20, false)}},
          {{tower.second, {true, false}}, {tower.second_relu, {true, true, false}}},
          {{tower.top, {true, false, true, true, false}}, {tower.third_relu, {false, true}}}};
      for (std::size_t m = 0; m < masks.size(); ++m) {
        for (const std::size_t start : {tower.top, tower.third_relu, tower.second}) {
          check::context = std::string(rule) + ", batch " + std::to_string(batch) + ", masks " + std::to_string(m) +
                           ", from " + std::to_string(start) + ", bytes " + std::to_string(sizeof(T));
          Question<T> question{start, 1, {}, {0}, masks[m]};
          question.threads = 2;
          const Answer<T> found = ask(net, plan, inputs, question);
          CHECK(found.left.empty() || found.left == Chosen{start});
          Question<T> elsewhere = question;
          elsewhere.asked = net.all_values();
          const Answer<T> expected = ask(net, plan, inputs, elsewhere);
          CHECK(!net.seen(tower.second).replaced && !net.seen(tower.second).spare);
          CHECK(same_bits(found.relevance[0], expected.relevance[0]) && same_bits(found.ledger, expected.ledger));
          Question<T> kept = question;  // values stay, which ask() looks at
          kept.wanted = net.all_values();
          const Answer<T> beside = ask(net, plan, inputs, kept);
          CHECK(same_bits(found.relevance[0], beside.relevance[0]) && same_bits(found.ledger, beside.ledger));
          Question<T> two = question;
          two.targets = 2;
          const Answer<T> both = ask(net, plan, inputs, two);
          const std::vector<T>& all = both.relevance[0];
          const auto half = static_cast<std::ptrdiff_t>(all.size() / 2);
          CHECK(same_bits(found.relevance[0], std::vector<T>(all.begin(), all.begin() + half)));
        }
      }
    }
  }
}
TEST(relevance_in_place_changes_no_bit_float32) { check_same_bits<float>(); }
TEST(relevance_in_place_changes_no_bit_float64) { check_same_bits<double>(); }

}  // namespace
}  // namespace pylrp
