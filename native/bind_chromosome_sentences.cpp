// Sentences by chromosome for Python: dataclasses of kernel/chromosome_sentences.py to the structs of the kernel.
#include "bind_tokens.hpp"

#include "bind_arrays.hpp"
#include "chromosome_sentences.hpp"

namespace cellmill {
namespace {

SentencePlan to_plan(nb::handle plan, const TokenCells& cells) {
    SentencePlan made;
    made.rows = entries<const std::int64_t>(plan, "rows");
    made.chromosomes = entries<const std::int64_t>(plan, "chromosomes");
    made.places = entries<const std::int64_t>(plan, "places");
    const std::size_t n_columns = cells.token_of.size();
    expect(made.rows, n_columns, "rows");
    expect(made.chromosomes, n_columns, "chromosomes");
    expect(made.places, n_columns, "places");
    made.n_draws = number<std::size_t>(plan, "n_draws");
    made.width = number<std::size_t>(plan, "width");
    if (made.width == 0) throw std::invalid_argument("width must be 1 or more");
    made.first = number<std::int64_t>(plan, "first");
    made.last = number<std::int64_t>(plan, "last");
    made.padding = number<std::int64_t>(plan, "padding");
    made.offset = number<std::int64_t>(plan, "offset");
    made.uniforms = entries<const double>(plan, "uniforms");
    if (!made.uniforms.empty()) expect(made.uniforms, cells.size() * made.n_draws, "uniforms");
    for (const double u : made.uniforms)
        if (!(u >= 0.0 && u < 1.0)) throw std::invalid_argument("uniforms must lie in [0, 1)");
    made.order = entries<const std::uint64_t>(plan, "order");
    if (!made.order.empty()) expect(made.order, cells.size() * n_columns, "order");
    return made;
}

nb::object tokenise(nb::handle cells, nb::handle plan, nb::handle out, std::size_t threads) {
    const TokenCells given = token_cells(cells, true);
    const SentencePlan made = to_plan(plan, given);
    const auto genes = entries<std::int64_t>(out, "genes");
    const auto values = entries<float>(out, "values");
    const auto lengths = entries<std::int64_t>(out, "lengths");
    const auto drawn = entries<std::int64_t>(out, "drawn");
    expect(genes, given.size() * made.width, "genes");
    expect(values, given.size() * made.width, "values");
    expect(lengths, given.size(), "lengths");
    expect(drawn, given.size(), "drawn");
    const SentenceOut to{genes.data(), values.data(), lengths.data(), drawn.data()};
    {
        const nb::gil_scoped_release release;
        tokenise_sentences(given, made, to, threads);
    }
    return fault_of(given);
}

}  // namespace

void bind_chromosome_sentences(nb::module_& m) {
    using nb::arg;
    m.def("tokenise_sentences", &tokenise, arg("cells"), arg("plan"), arg("out"), arg("threads"));
}

}  // namespace cellmill
