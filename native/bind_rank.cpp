// Ranks of genes for Python: dataclasses of kernel/ranks.py to the structs of rank.hpp.
#include "bind_arrays.hpp"
#include "bind_tokens.hpp"
#include "rank.hpp"

namespace cellmill {
namespace {

RankRules to_rules(nb::handle rules) {
    const int values = number<int>(rules, "values");
    if (values < 0 || values > static_cast<int>(RankValues::scaled)) throw std::invalid_argument("values must be 0 to 3");
    return {static_cast<RankValues>(values), number<bool>(rules, "single"), number<bool>(rules, "keyed_ties"),
            number<std::int64_t>(rules, "token_offset"), number<std::int64_t>(rules, "pad_token")};
}

RankPlan to_plan(nb::handle plan, const TokenCells& cells, bool ratio, bool totals) {
    RankPlan made{entries<const std::int64_t>(plan, "room"),   entries<const double>(plan, "divisors"),
                  entries<const double>(plan, "totals"),       entries<const double>(plan, "values"),
                  entries<const std::uint64_t>(plan, "ties"),  entries<const std::int64_t>(plan, "head"),
                  number<std::size_t>(plan, "n_head"),         entries<const std::int64_t>(plan, "tail")};
    expect(made.room, cells.size(), "room");
    expect(made.divisors, cells.token_of.size(), "divisors");
    expect(made.head, cells.size() * made.n_head, "head");
    if (totals || !made.totals.empty()) expect(made.totals, cells.size(), "totals");
    if (!made.values.empty()) expect(made.values, cells.entries(), "values");
    if (!made.ties.empty()) expect(made.ties, cells.entries(), "ties");
    const auto keyed = entries<const std::uint8_t>(plan, "keyed");
    if (keyed.empty()) return made;
    expect(keyed, cells.token_of.size() * sizeof(KeyedColumn), "keyed");
    if (reinterpret_cast<std::uintptr_t>(keyed.data()) % alignof(KeyedColumn) != 0) throw std::invalid_argument("keyed is not aligned");
    if (!ratio || !made.values.empty() || !made.ties.empty()) throw std::invalid_argument("keyed is for ratios of counts, ties by token");
    made.keyed = {reinterpret_cast<const KeyedColumn*>(keyed.data()), cells.token_of.size()};
    return made;
}

template <class T>
T* as_long(std::span<T> array, std::size_t size, const char* name, bool wanted) {
    if (!wanted && array.data() == nullptr) return nullptr;
    expect(array, size, name);
    return array.data();
}

RankOut to_out(nb::handle out, std::size_t cells) {
    RankOut made;
    made.starts = entries<const std::int64_t>(out, "starts");
    const auto genes = entries<std::int64_t>(out, "genes");
    const std::size_t size = genes.size();
    expect_starts(made.starts, cells, size, "starts");
    made.genes = genes.data();
    made.values = as_long(entries<float>(out, "values"), size, "values", true);
    made.ranked = as_long(entries<double>(out, "ranked"), size, "ranked", false);
    made.per_10k = as_long(entries<double>(out, "per_10k"), size, "per_10k", false);
    made.lengths = as_long(entries<std::int64_t>(out, "lengths"), cells, "lengths", true);
    return made;
}

nb::object rank(nb::handle cells, nb::handle rules, nb::handle plan, nb::handle out, std::size_t threads) {
    const TokenCells given = token_cells(cells, true);
    const RankRules made = to_rules(rules);
    const RankOut to = to_out(out, given.size());
    const bool ratio = made.values == RankValues::ratio && !made.keyed_ties;
    const RankPlan planned = to_plan(plan, given, ratio, made.values != RankValues::ratio || to.per_10k != nullptr);
    {
        const nb::gil_scoped_release release;
        rank_genes(given, made, planned, to, threads);
    }
    return fault_of(given);
}

}  // namespace

void bind_rank(nb::module_& m) {
    using nb::arg;
    m.def("rank_genes", &rank, arg("cells"), arg("rules"), arg("plan"), arg("out"), arg("threads"));
}

}  // namespace cellmill
