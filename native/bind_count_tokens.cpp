// Count tokens for Python: dataclasses of kernel/count_tokens.py to the structs of count_tokens.hpp.
#include "bind_tokens.hpp"

#include <algorithm>

#include "bind_arrays.hpp"
#include "count_tokens.hpp"

namespace cellmill {
namespace {

// Every index of one array must name an entry of the other.
void check_places(std::span<const std::int32_t> places, std::size_t size, const char* name) {
    for (const std::int32_t place : places)
        if (place < -1 || (place >= 0 && static_cast<std::size_t>(place) >= size))
            throw std::invalid_argument(std::string(name) + " names an entry that is not there");
}

CountTokenPlan to_plan(nb::handle plan, const TokenCells& cells) {
    CountTokenPlan made;
    made.edges = entries<const std::uint32_t>(plan, "edges");
    if (!std::is_sorted(made.edges.begin(), made.edges.end())) throw std::invalid_argument("edges must ascend");
    made.mask_token = number<std::int64_t>(plan, "mask_token");
    made.pad_token = number<std::int64_t>(plan, "pad_token");
    made.pad_gene = number<std::int64_t>(plan, "pad_gene");
    made.largest = number<bool>(plan, "largest");
    made.ratio = entries<const double>(plan, "ratio");
    expect(made.ratio, cells.size(), "ratio");
    made.mask = entries<const std::uint64_t>(plan, "mask");
    if (nb::getattr(plan, "panel").is_none()) {
        made.room = entries<const std::int64_t>(plan, "room");
        expect(made.room, cells.size(), "room");
        if (!made.mask.empty()) expect(made.mask, cells.entries(), "mask");
        return made;
    }
    made.panel = entries<const std::int32_t>(plan, "panel");
    made.slot_of = entries<const std::int32_t>(plan, "slot_of");
    expect(made.slot_of, cells.token_of.size(), "slot_of");
    check_places(made.panel, cells.token_of.size(), "panel");
    check_places(made.slot_of, made.panel.size(), "slot_of");
    if (!made.mask.empty()) expect(made.mask, cells.size() * made.panel.size(), "mask");
    return made;
}

CountTokenOut to_out(nb::handle out, const TokenCells& cells, const CountTokenPlan& plan) {
    CountTokenOut made;
    made.starts = entries<const std::int64_t>(out, "starts");
    const auto values = entries<std::int64_t>(out, "values");
    expect_starts(made.starts, cells.size(), values.size(), "starts");
    const auto target = entries<std::int64_t>(out, "target");
    const auto mask = entries<std::uint8_t>(out, "mask");
    const auto lengths = entries<std::int64_t>(out, "lengths");
    expect(target, values.size(), "target");
    expect(mask, values.size(), "mask");
    expect(lengths, cells.size(), "lengths");
    if (plan.slot_of.empty()) {
        const auto genes = entries<std::int64_t>(out, "genes");
        expect(genes, values.size(), "genes");
        made.genes = genes.data();
    } else {
        for (std::size_t cell = 0; cell < cells.size(); ++cell)
            if (made.starts[cell + 1] - made.starts[cell] != static_cast<std::int64_t>(plan.panel.size()))
                throw std::invalid_argument("starts must leave room for the panel, and no more");
    }
    made.values = values.data();
    made.target = target.data();
    made.mask = mask.data();
    made.lengths = lengths.data();
    return made;
}

nb::object tokenise(nb::handle cells, nb::handle plan, nb::handle out, std::size_t threads) {
    const TokenCells given = token_cells(cells, true);
    const CountTokenPlan made = to_plan(plan, given);
    if (!made.panel.empty() && made.slot_of.empty()) throw std::invalid_argument("slot_of is empty: a panel needs columns");
    const CountTokenOut to = to_out(out, given, made);
    {
        const nb::gil_scoped_release release;
        tokenise_counts(given, made, to, threads);
    }
    return fault_of(given);
}

}  // namespace

void bind_count_tokens(nb::module_& m) {
    using nb::arg;
    m.def("tokenise_counts", &tokenise, arg("cells"), arg("plan"), arg("out"), arg("threads"));
}

}  // namespace cellmill
