// Sequences of genes for Python: dataclasses of kernel/sequences.py to the structs of sequence.hpp.
#include "bind_tokens.hpp"

#include <cmath>

#include "bind_arrays.hpp"
#include "sequence.hpp"

namespace cellmill {
namespace {

SequenceRules to_rules(nb::handle rules) {
    SequenceRules made;
    made.values = static_cast<SequenceValues>(number<int>(rules, "values"));
    made.n_bins = number<int>(rules, "n_bins");
    made.ties = static_cast<Ties>(number<int>(rules, "ties"));
    made.target_sum = number<double>(rules, "target_sum");
    made.choose = static_cast<Choose>(number<int>(rules, "choose"));
    made.shuffled = number<bool>(rules, "shuffled");
    made.split = number<bool>(rules, "split");
    made.split_first = number<bool>(rules, "split_first");
    made.keep = number<std::int64_t>(rules, "keep");
    made.mask_heads = number<bool>(rules, "mask_heads");
    made.skip = number<std::int64_t>(rules, "skip");
    made.spared = number<double>(rules, "spared");
    made.zero_value = number<float>(rules, "zero_value");
    made.mask_value = number<float>(rules, "mask_value");
    made.pad_value = number<float>(rules, "pad_value");
    made.pad_token = number<std::int64_t>(rules, "pad_token");
    if (made.n_bins < 3 || made.skip < 0 || made.keep < 0) throw std::invalid_argument("n_bins must be 3 or more, skip and keep 0 or more");
    return made;
}

SequencePlan to_plan(nb::handle plan, const TokenCells& cells) {
    SequencePlan made{entries<const std::int64_t>(plan, "room"),        entries<const std::int64_t>(plan, "part_room"),
                      entries<const std::int64_t>(plan, "n_fill"),      entries<const std::int64_t>(plan, "n_mask"),
                      entries<const std::int64_t>(plan, "maskable"),    entries<const double>(plan, "ratio"),
                      entries<const std::int64_t>(plan, "head_tokens"), entries<const float>(plan, "head_values"),
                      number<std::size_t>(plan, "n_head"),              entries<const std::uint8_t>(plan, "fillers"),
                      entries<const std::int64_t>(plan, "source")};
    const std::size_t n = cells.size();
    expect(made.room, n, "room");
    expect(made.head_tokens, n * made.n_head, "head_tokens");
    expect(made.head_values, n * made.n_head, "head_values");
    if (!made.part_room.empty()) expect(made.part_room, n, "part_room");
    if (!made.n_mask.empty()) {
        expect(made.n_mask, n, "n_mask");
        expect(made.maskable, n, "maskable");
        expect(made.ratio, n, "ratio");
    }
    if (!made.n_fill.empty()) {
        expect(made.n_fill, n, "n_fill");
        expect(made.source, n, "source");
        for (const std::int64_t source : made.source)
            if (source < 0 || (static_cast<std::size_t>(source) + 1) * cells.token_of.size() > made.fillers.size())
                throw std::invalid_argument("source names a row of fillers that is not there");
    }
    return made;
}

SequenceNumbers to_numbers(nb::handle numbers, std::size_t nnz) {
    SequenceNumbers made{entries<const double>(numbers, "bin"), entries<const std::uint64_t>(numbers, "sample"),
                         entries<const std::uint64_t>(numbers, "mask")};
    if (!made.bin.empty()) expect(made.bin, nnz, "bin");
    if (!made.sample.empty()) expect(made.sample, nnz, "sample");
    if (!made.mask.empty()) expect(made.mask, nnz, "mask");
    return made;
}

template <class T>
T* wanted(std::span<T> array, std::size_t size, const char* name) {
    if (array.data() == nullptr) return nullptr;
    expect(array, size, name);
    return array.data();
}

SequenceOut to_out(nb::handle out, std::size_t cells, bool parts) {
    SequenceOut made;
    made.starts = entries<const std::int64_t>(out, "starts");
    const auto genes = entries<std::int64_t>(out, "genes");
    const std::size_t size = genes.size();
    expect_starts(made.starts, cells, size, "starts");
    made.genes = genes.data();
    const auto values = entries<float>(out, "values");
    expect(values, size, "values");
    made.values = values.data();
    made.target = wanted(entries<float>(out, "target"), size, "target");
    made.raw = wanted(entries<float>(out, "raw"), size, "raw");
    made.mask = wanted(entries<std::uint8_t>(out, "mask"), size, "mask");
    const auto lengths = entries<std::int64_t>(out, "lengths");
    expect(lengths, cells, "lengths");
    made.lengths = lengths.data();
    if (!parts) return made;
    made.part_starts = entries<const std::int64_t>(out, "part_starts");
    const auto part_genes = entries<std::int64_t>(out, "part_genes");
    expect_starts(made.part_starts, cells, part_genes.size(), "part_starts");
    made.part_genes = part_genes.data();
    const auto part_target = entries<float>(out, "part_target");
    expect(part_target, part_genes.size(), "part_target");
    made.part_target = part_target.data();
    made.part_raw = wanted(entries<float>(out, "part_raw"), part_genes.size(), "part_raw");
    const auto part_lengths = entries<std::int64_t>(out, "part_lengths");
    expect(part_lengths, cells, "part_lengths");
    made.part_lengths = part_lengths.data();
    return made;
}

nb::object tokenise(nb::handle cells, nb::handle rules, nb::handle plan, nb::handle numbers, nb::handle out, std::size_t threads) {
    const TokenCells given = token_cells(cells, true);
    const SequenceRules made = to_rules(rules);
    const SequencePlan planned = to_plan(plan, given);
    const SequenceNumbers drawn = to_numbers(numbers, given.entries());
    const SequenceOut to = to_out(out, given.size(), made.split || made.split_first);
    if (made.split_first && planned.part_room.empty()) throw std::invalid_argument("part_room is needed with split_first");
    {
        const nb::gil_scoped_release release;
        tokenise_sequences(given, made, planned, drawn, to, threads);
    }
    return fault_of(given);
}

}  // namespace

void bind_sequence(nb::module_& m) {
    using nb::arg;
    m.def("tokenise_sequences", &tokenise, arg("cells"), arg("rules"), arg("plan"), arg("numbers"), arg("out"), arg("threads"));
}

}  // namespace cellmill
