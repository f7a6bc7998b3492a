// Cells without genes that have no token, for Python: kernel/known_cells.py.
#include "bind_arrays.hpp"
#include "bind_tokens.hpp"
#include "known_cells.hpp"

namespace cellmill {
namespace {

template <class T>
using Entries = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void count(nb::handle cells, bool zeros, const Entries<std::int64_t>& sizes, std::size_t threads) {
    const TokenCells given = token_cells(cells);
    const std::span<std::int64_t> to(sizes.data(), sizes.size());
    expect(to, given.size(), "sizes");
    const nb::gil_scoped_release release;
    count_known(given, zeros, to, threads);
}

void write(nb::handle cells, bool zeros, const Entries<const std::int64_t>& indptr, const Entries<std::int32_t>& columns,
           const Entries<std::uint32_t>& counts, std::size_t threads) {
    const TokenCells given = token_cells(cells);
    const std::span<const std::int64_t> from(indptr.data(), indptr.size());
    const std::span<std::int32_t> to_columns(columns.data(), columns.size());
    const std::span<std::uint32_t> to_counts(counts.data(), counts.size());
    expect_starts(from, given.size(), columns.size(), "indptr");
    expect(to_counts, columns.size(), "counts");
    const nb::gil_scoped_release release;
    write_known(given, zeros, from, to_columns, to_counts, threads);
}

}  // namespace

void bind_known_cells(nb::module_& m) {
    using nb::arg;
    m.def("count_known", &count, arg("cells"), arg("zeros"), arg("sizes").noconvert(), arg("threads"));
    m.def("write_known", &write, arg("cells"), arg("zeros"), arg("indptr").noconvert(), arg("columns").noconvert(),
          arg("counts").noconvert(), arg("threads"));
}

}  // namespace cellmill
