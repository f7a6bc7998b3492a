// NumPy arrays to a block of stored cells and back; dtypes are told apart here, once a call.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <variant>

#include "bind_ingest.hpp"
#include "ingest.hpp"

namespace nb = nanobind;

namespace cellmill {
namespace {

using Any = nb::ndarray<nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using In = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<nb::numpy, T, nb::ndim<1>, nb::c_contig>;

template <class T>
std::span<const T> view(const In<T>& array) {
    return {array.data(), array.shape(0)};
}

// The first `size` entries of a buffer, which is handed on without a copy.
template <class T>
Out<T> to_array(Buffer<T>&& buffer, std::size_t size) {
    auto owner = std::make_unique<Buffer<T>>(std::move(buffer));
    T* data = owner->data();
    nb::capsule capsule(owner.get(), [](void* p) noexcept { delete static_cast<Buffer<T>*>(p); });
    owner.release();
    return Out<T>(data, {size}, capsule);
}

template <class T>
Out<T> to_array(Buffer<T>&& buffer) {
    const std::size_t size = buffer.size();
    return to_array(std::move(buffer), size);
}

template <class... Types>
void choose_type(const Any& array, OneOf<Types...>& to, const char* problem) {
    const bool found = ((array.dtype() == nb::dtype<Types>() && (to = static_cast<const Types*>(array.data()), true)) || ...);
    if (!found) throw std::invalid_argument(problem);
}

nb::tuple ingest(const In<std::int64_t>& indptr, const Any& indices, const Any& values,
                 const In<std::int32_t>& position_of, const In<std::uint64_t>& gene_hashes, const nb::object& head,
                 std::size_t threads, const std::optional<In<std::uint8_t>>& classes) {
    if (indices.shape(0) != values.shape(0)) throw std::invalid_argument("indices and values must be of one length");
    StoredCells cells{view(indptr), {}, {}, indices.shape(0)};
    choose_type(indices, cells.indices, "indices must be int32, uint32 or int64");
    choose_type(values, cells.values, "values must be integers, float32 or float64");
    const GeneMap genes{view(position_of), view(gene_hashes), head.is_none() ? nullptr : nb::cast<const Model*>(head),
                        classes ? view(*classes) : std::span<const std::uint8_t>{}};
    if (classes && genes.classes.size() != genes.position_of.size())
        throw std::invalid_argument("there must be a class for each gene of the source");
    if (genes.head != nullptr && genes.head->n_genes() > genes.hashes.size())
        throw std::invalid_argument("there are more head genes than genes");
    IngestedCells out = [&] {
        const nb::gil_scoped_release release;
        return ingest_cells(cells, genes, threads);
    }();
    nb::object refusal = nb::none();
    if (out.refusal.why != Refusal::none) {
        refusal = nb::make_tuple(static_cast<int>(out.refusal.why), out.refusal.cell, out.refusal.number);
        return nb::make_tuple(refusal);
    }
    const std::size_t bytes = out.offsets.data()[cells.n_cells()];
    nb::object whole = nb::none();
    if (!genes.classes.empty())
        whole = nb::make_tuple(to_array(std::move(out.whole.totals)), to_array(std::move(out.whole.most)),
                               to_array(std::move(out.whole.detected)), to_array(std::move(out.whole.of_class)));
    return nb::make_tuple(refusal, to_array(std::move(out.frames), bytes), to_array(std::move(out.offsets)),
                          to_array(std::move(out.totals)), to_array(std::move(out.detected)),
                          to_array(std::move(out.fingerprints)), to_array(std::move(out.umis)),
                          to_array(std::move(out.cells_with)), out.largest, out.nonzeros, out.merged, whole);
}

}  // namespace

void bind_ingest(nb::module_& m) {
    using nb::arg;
    m.def("ingest", &ingest, arg("indptr").noconvert(), arg("indices").noconvert(), arg("values").noconvert(),
          arg("position_of").noconvert(), arg("gene_hashes").noconvert(), arg("head").none(), arg("threads"), arg("classes").noconvert() = nb::none());
}

}  // namespace cellmill
