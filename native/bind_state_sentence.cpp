// STATE's sentences for Python: dataclasses of kernel/state_sentences.py to the structs of state_sentence.hpp.
#include "bind_tokens.hpp"

#include "bind_arrays.hpp"
#include "state_sentence.hpp"

namespace cellmill {
namespace {

// Throws unless every number is -1 or names one of n things.
template <class T>
void expect_below(std::span<const T> numbers, std::size_t n, const char* name) {
    for (const T number : numbers)
        if (number < -1 || (number >= 0 && static_cast<std::size_t>(number) >= n))
            throw std::invalid_argument(std::string(name) + " names an entry that is not there");
}

void read_arrays(StatePlan& made, nb::handle plan, const TokenCells& cells) {
    const std::size_t n = cells.size();
    const std::size_t n_columns = cells.token_of.size();
    made.ids = entries<const std::int64_t>(plan, "ids");
    made.kept = entries<const std::uint8_t>(plan, "kept");
    made.logged = entries<const std::uint8_t>(plan, "logged");
    made.fraction = entries<const double>(plan, "fraction");
    made.shared = entries<const std::int64_t>(plan, "shared");
    made.shared_columns = entries<const std::int32_t>(plan, "shared_columns");
    made.order = entries<const std::uint64_t>(plan, "order");
    made.mask = entries<const std::uint64_t>(plan, "mask");
    expect(made.ids, n_columns, "ids");
    expect(made.kept, n_columns, "kept");
    expect(made.logged, n, "logged");
    expect(made.fraction, n, "fraction");
    expect(made.shared, n * made.n_shared, "shared");
    expect(made.shared_columns, n * made.n_shared, "shared_columns");
    if (!made.order.empty()) expect(made.order, n * n_columns, "order");
    if (!made.mask.empty()) expect(made.mask, n * made.width, "mask");
    expect_below(made.ids, made.n_ids, "ids");
    expect_below(made.shared, made.n_ids, "shared");
    expect_below(made.shared_columns, n_columns, "shared_columns");
    for (const double fraction : made.fraction)
        if (!(fraction >= 0.0 && fraction <= 1.0)) throw std::invalid_argument("fraction must lie in 0..1");
}

StatePlan to_plan(nb::handle plan, const TokenCells& cells) {
    StatePlan made;
    made.n_ids = number<std::size_t>(plan, "n_ids");
    made.width = number<std::size_t>(plan, "width");
    made.n_expressed = number<std::size_t>(plan, "n_expressed");
    made.n_unexpressed = number<std::size_t>(plan, "n_unexpressed");
    made.n_shared = number<std::size_t>(plan, "n_shared");
    made.mask_ratio = number<double>(plan, "mask_ratio");
    made.first = number<std::int64_t>(plan, "first");
    made.padding = number<std::int64_t>(plan, "padding");
    made.first_column = number<std::int64_t>(plan, "first_column");
    made.faithful = number<bool>(plan, "faithful");
    made.binary = number<bool>(plan, "binary");
    if (made.width < 2) throw std::invalid_argument("width must be 2 or more");
    if (!(made.mask_ratio >= 0.0 && made.mask_ratio <= 1.0)) throw std::invalid_argument("mask_ratio must lie in 0..1");
    if (made.first_column >= 0 && static_cast<std::size_t>(made.first_column) >= cells.token_of.size())
        throw std::invalid_argument("first_column names a column that is not there");
    read_arrays(made, plan, cells);
    return made;
}

template <class T>
T* filled(nb::handle out, const char* name, std::size_t size) {
    const auto array = entries<T>(out, name);
    expect(array, size, name);
    return array.data();
}

nb::object tokenise(nb::handle cells, nb::handle plan, nb::handle out, std::size_t threads) {
    const TokenCells given = token_cells(cells, true);
    const StatePlan made = to_plan(plan, given);
    const std::size_t n = given.size();
    const std::size_t tasks = n * (made.n_expressed + made.n_unexpressed + made.n_shared);
    const StateOut to{filled<std::int64_t>(out, "genes", n * made.width), filled<float>(out, "values", n * made.width),
                      filled<std::uint8_t>(out, "mask", n * made.width),  filled<std::int64_t>(out, "lengths", n),
                      filled<std::int64_t>(out, "task_genes", tasks),     filled<float>(out, "task_values", tasks),
                      filled<float>(out, "totals", n),                    filled<std::uint8_t>(out, "faults", n)};
    {
        const nb::gil_scoped_release release;
        tokenise_state(given, made, to, threads);
    }
    return fault_of(given);
}

}  // namespace

void bind_state_sentence(nb::module_& m) {
    using nb::arg;
    m.def("tokenise_state", &tokenise, arg("cells"), arg("plan"), arg("out"), arg("threads"));
}

}  // namespace cellmill
