// What the engine lets go of on its way down, and the sums of relevance that it does not add up twice.
#include <algorithm>

#include "check.hpp"
#include "rich_net.hpp"

namespace pylrp {
namespace {

using Chosen = std::vector<std::size_t>;

// Nothing is left but what is wanted, and that is as it was (ask() looks at it).
TEST(relevance_frees_what_it_has_read) {
  for (const auto& [bottom, middle, above] : kRules) {
    Rich<double> rich(bottom, middle, above);
    const Plan<double> plan = rich.net.plan();
    const Inputs<double> inputs(rich.net, 2, 2, 3);
    const auto left = [&](const Chosen& wanted, const Chosen& asked, std::size_t start) {
      Chosen values = ask(rich.net, plan, inputs, {start, 2, wanted, asked}).left;
      const bool is_wanted = std::count(wanted.begin(), wanted.end(), start) > 0;
      // The start's own value is not read.
      values.erase(std::remove(values.begin(), values.end(), is_wanted ? kNoValue : start), values.end());
      return values;
    };
    for (std::size_t value = 2; value < rich.net.values(); ++value) {
      check::context = std::string(bottom) + ", wanted " + std::to_string(value);
      CHECK(left({value}, {}, rich.top) == Chosen{value});
    }
    check::context = bottom;
    CHECK(left({}, {}, rich.top).empty() && left({}, rich.net.all_values(), rich.top).empty());
    Chosen nodes = rich.net.all_values();
    nodes.erase(nodes.begin(), nodes.begin() + 2);  // the inputs' memory is the caller's
    CHECK(left(nodes, {0}, rich.top) == nodes);
  }
}

// At once: when a layer is asked, what only later ones read is gone.
TEST(relevance_frees_on_its_way) {
  for (const char* const rule : {"z+", "epsilon", "w^2"}) {
    for (const bool wanted : {false, true}) {
      Net<float> net{{12}};
      std::vector<std::size_t> values;  // dense, ReLU, dense, ReLU, ..
      std::size_t value = 0;
      for (const Index size : {11, 10, 9, 8}) {
        values.push_back(net.dense(value, size, rule));
        values.push_back(value = net.relu(values.back()));
      }
      const std::size_t kept = values[3];
      const Plan<float> plan = net.plan();
      const Inputs<float> inputs(net, 1, 3, 1);
      ForwardValues<float> pass = plan.forward(inputs.views(), wanted ? Chosen{kept} : Chosen{}, value, {1});
      Fenced<float> top(3, 8), result(3, 12);
      fill_top(top, 3);
      RelevanceRequest<float> request{value, top.read(), std::vector<Matrix<float>>(net.values()), {}, nullptr};
      request.results[0] = result.view();
      std::vector<double> ledger(net.graph().nodes().size() * kLedgerColumns * 3);
      request.ledger = ledger.data();
      std::vector<std::size_t> there;  // values with memory, each time a layer is asked
      net.meanwhile([&] {
        there.push_back(0);
        for (std::size_t v = 1; v < net.values(); ++v) {
          there.back() += pass.memory[v] != nullptr && v != value && !(wanted && v == kept) ? 1 : 0;
        }
      });
      plan.relevance(&pass, request, {1});
      check::context = std::string(rule) + (wanted ? ", wanted" : "");
      // z+ reads its input; epsilon its z, too, for which the ReLU behind stands; w^2 neither. From the top down.
      const std::size_t own = *rule == 'e' ? 1 : 0;
      CHECK(there.size() == 4);
      for (std::size_t n = 0; n < there.size(); ++n) {
        const std::size_t still_read = *rule == 'w' ? 0 : 3 - n + own;  // of this layer and those below
        CHECK(there[n] == still_read - (wanted && still_read >= 2 ? 1 : 0));
      }
      CHECK(result.intact() && net.intact());
    }
  }
}

// --- the ledger's sums ---

// A page says what came to a node and what went on from it, whatever was asked for besides: with results asked for no
// relevance is handed on as it is, and each is added up where it lies.
TEST(ledger_does_not_depend_on_what_is_asked) {
  for (const auto& [bottom, middle, above] : kRules) {
    Rich<double> rich(bottom, middle, above);
    const Plan<double> plan = rich.net.plan();
    const Inputs<double> inputs(rich.net, 2, 3, 4);
    std::vector<bool> some(17);
    some[2] = some[3] = some[16] = true;
    // On a layer's own value, behind its ReLU, on a value with several readers, on both of a chain, on the start.
    const std::vector<std::vector<ChannelMask>> masks{{},
                                                      {{rich.first, some}},
                                                      {{rich.first_relu, some}},
                                                      {{rich.added, some}, {rich.added_relu, some}},
                                                      {{rich.pooled, some}, {rich.joined, std::vector<bool>(34)}},
                                                      {{rich.top, {true, false, true}}}};
    for (std::size_t n = 0; n < masks.size(); ++n) {
      Question<double> question{rich.top, 2, {}, rich.net.all_values(), masks[n]};
      const Answer<double> all = ask(rich.net, plan, inputs, question);
      for (const Chosen& asked : {Chosen{}, Chosen{0, 1}, Chosen{rich.first}, Chosen{rich.added_relu, rich.pooled}}) {
        check::context = std::string(bottom) + ", masks " + std::to_string(n) + ", asked " +
                         std::to_string(asked.empty() ? 99 : asked[0]);
        question.asked = asked;
        CHECK(same_bits(all.ledger, ask(rich.net, plan, inputs, question).ledger));
      }
    }
  }
}

// What came to a node is the sum of the relevance of its value, with what a mask took from it; what went on from a
// node is what came to its one reader. Readers: of a value with several, of a layer that passes all on, of a ReLU.
TEST(ledger_sums_are_those_of_the_relevance) {
  for (const bool by_relu : {false, true}) {
    for (const int masked : {0, 1, 2, 3}) {
      Net<double> net{{12}};
      const std::size_t below = net.dense(0, 10, "z+");
      const std::size_t split = by_relu ? net.relu(below) : net.dense(below, 10, "");
      const std::size_t left = net.dense(split, 8, "epsilon");
      const std::size_t right = net.dense(split, 8, "alpha-beta");
      const std::size_t passed = net.dense(right, 8, "");
      const std::size_t same = net.relu(passed);
      const std::size_t twice = net.sum({left, same, same});
      const std::size_t top = net.dense(net.relu(twice), 5, "z+");
      const Plan<double> plan = net.plan();
      const Inputs<double> inputs(net, 1, 2, 7);
      std::vector<ChannelMask> masks;
      const std::vector<bool> even{true, false};
      if (masked == 1) {
        masks = {{split, even}};
      } else if (masked == 2) {
        masks = {{passed, even}, {same, even}, {below, even}};
      } else if (masked == 3) {
        masks = {{twice, even}, {left, {false, true, true, true}}};
      }
      const Question<double> all_asked{top, 2, {}, net.all_values(), masks};
      const Answer<double> relevance = ask(net, plan, inputs, all_asked);
      const Answer<double> answer = ask(net, plan, inputs, {top, 2, {}, {}, masks});
      for (const std::size_t value : {below, split, left, right, passed, twice}) {
        check::context = std::string(by_relu ? "ReLU" : "passes") + ", masks " + std::to_string(masked) + ", value " +
                         std::to_string(value);
        if (net.graph().nodes()[net.node_of(value)].layer->flow() == Flow::kIdentity) {
          continue;  // no page of its own but for a mask
        }
        for (Index row = 0; row < 4; ++row) {
          Sum64 stays;  // results are what a mask left
          for (Index j = 0; j < net.size(value); ++j) {
            stays.add(relevance.relevance[value][static_cast<std::size_t>(row * net.size(value) + j)]);
          }
          const auto page = [&](Ledger::Column column) { return answer.page(net.node_of(value), column, row); };
          CHECK(near(page(Ledger::incoming), stays.value + page(Ledger::masked), 1e-12 * (1 + stays.size)));
          CHECK(near(page(Ledger::rounding), 0, 1e-12 * (1 + stays.size)));
          const bool has_mask =
              std::any_of(masks.begin(), masks.end(), [&](const auto& m) { return m.value == value; });
          CHECK(has_mask || page(Ledger::masked) == 0);
        }
      }
      const auto out = [&](std::size_t value, Index row) {
        return answer.page(net.node_of(value), Ledger::outgoing, row);
      };
      for (Index row = 0; row < 4; ++row) {
        const auto in = [&](std::size_t value) { return answer.page(net.node_of(value), Ledger::incoming, row); };
        const double lost = masked == 2 ? answer.page(net.node_of(same), Ledger::masked, row) : 0;
        CHECK(near(out(passed, row), in(right), 1e-12));
        CHECK(near(out(twice, row), in(left) + in(passed) + lost, 1e-12));
        const double at_split = masked == 1 && by_relu ? answer.page(net.node_of(split), Ledger::masked, row) : 0;
        CHECK(near(out(left, row) + out(right, row), (by_relu ? in(below) : in(split)) + at_split, 1e-11));
      }
    }
  }
}

}  // namespace
}  // namespace pylrp
