// Panels for Python: dataclasses of kernel/hvg_panels.py to the structs of hvg_panel.hpp.
#include "bind_tokens.hpp"

#include "bind_arrays.hpp"
#include "hvg_panel.hpp"

namespace cellmill {
namespace {

void check_slots(std::span<const std::int32_t> slot_of, const TokenCells& cells, std::size_t n_slots) {
    expect(slot_of, cells.token_of.size(), "slot_of");
    for (const std::int32_t slot : slot_of)
        if (slot < -1 || (slot >= 0 && static_cast<std::size_t>(slot) >= n_slots))
            throw std::invalid_argument("slot_of names a slot that is not there");
}

void count_others(nb::handle cells, nb::handle plan, nb::handle out, std::size_t threads) {
    const TokenCells given = token_cells(cells);
    const auto slot_of = entries<const std::int32_t>(plan, "slot_of");
    check_slots(slot_of, given, number<std::size_t>(plan, "n_slots"));
    const auto fill_to = number<std::size_t>(plan, "fill_to");
    const auto counted = entries<std::int64_t>(out, "other_lengths");
    expect(counted, given.size(), "other_lengths");
    const nb::gil_scoped_release release;
    count_other_genes(given, slot_of, fill_to, counted.data(), threads);
}

void tokenise(nb::handle cells, nb::handle plan, nb::handle out, std::size_t threads) {
    const TokenCells given = token_cells(cells);
    const PanelRules rules{static_cast<PanelValues>(number<int>(plan, "values")), number<std::size_t>(plan, "n_slots"),
                           number<std::size_t>(plan, "fill_to"), number<std::int64_t>(plan, "pad_token")};
    const auto slot_of = entries<const std::int32_t>(plan, "slot_of");
    check_slots(slot_of, given, rules.n_slots);
    const auto scales = entries<const double>(plan, "scales");
    expect(scales, given.size(), "scales");
    const auto values = entries<float>(out, "values");
    expect(values, given.size() * rules.n_slots, "values");
    PanelOut to;
    to.values = values.data();
    to.other_starts = entries<const std::int64_t>(out, "other_starts");
    const auto genes = entries<std::int64_t>(out, "other_genes");
    const auto others = entries<float>(out, "other_values");
    expect_starts(to.other_starts, given.size(), genes.size(), "other_starts");
    expect(others, genes.size(), "other_values");
    to.other_genes = genes.data();
    to.other_values = others.data();
    const nb::gil_scoped_release release;
    tokenise_panels(given, slot_of, scales, rules, to, threads);
}

}  // namespace

void bind_hvg_panel(nb::module_& m) {
    using nb::arg;
    m.def("count_other_genes", &count_others, arg("cells"), arg("plan"), arg("out"), arg("threads"));
    m.def("tokenise_panels", &tokenise, arg("cells"), arg("plan"), arg("out"), arg("threads"));
}

}  // namespace cellmill
