// The model of head genes for Python: sections of many cells at once, with no frames around them.
#include "bind_model.hpp"

#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "buffers.hpp"
#include "model.hpp"

namespace nb = nanobind;

namespace cellmill {
namespace {

template <class T>
using In = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<nb::numpy, T, nb::ndim<1>, nb::c_contig>;

template <class T>
Out<T> to_array(const std::vector<T>& values) {
    auto owner = std::make_unique<Buffer<T>>(values.size());
    std::copy(values.begin(), values.end(), owner->data());
    T* data = owner->data();
    nb::capsule capsule(owner.get(), [](void* p) noexcept { delete static_cast<Buffer<T>*>(p); });
    owner.release();
    return Out<T>(data, {values.size()}, capsule);
}

std::span<const std::uint8_t> view(const nb::bytes& data) {
    return {reinterpret_cast<const std::uint8_t*>(data.data()), data.size()};
}

int model_fault(const nb::bytes& data) {
    Model model;
    return static_cast<int>(Model::parse(view(data), model));
}

Model open_model(const nb::bytes& data) {
    Model model;
    const ModelFault fault = Model::parse(view(data), model);
    if (fault != ModelFault::none)
        throw std::invalid_argument("the model of the head genes cannot be read: fault " +
                                    std::to_string(static_cast<int>(fault)));
    return model;
}

template <class Gene>
void check_cells(const In<std::int64_t>& indptr, const In<Gene>& indices, const In<std::uint32_t>& values,
                 std::int64_t n_genes) {
    const std::size_t size = indices.shape(0);
    if (size != values.shape(0)) throw std::invalid_argument("indices and values must be of one length");
    const std::size_t bounds = indptr.shape(0);
    bool sound = bounds > 0 && indptr.data()[0] == 0 && indptr.data()[bounds - 1] == static_cast<std::int64_t>(size);
    for (std::size_t i = 1; sound && i < bounds; ++i) sound = indptr.data()[i - 1] <= indptr.data()[i];
    if (!sound) throw std::invalid_argument("indptr must start at 0, never fall, and end at the number of nonzeros");
    for (std::size_t cell = 0; cell + 1 < bounds; ++cell) {
        std::int64_t last = -1;
        for (std::int64_t j = indptr.data()[cell]; j < indptr.data()[cell + 1]; ++j) {
            const std::int64_t gene = indices.data()[j];
            if (gene <= last || gene >= n_genes || values.data()[j] == 0)
                throw std::invalid_argument("cell " + std::to_string(cell) +
                                            ": head genes must be ascending, each once, in 0.." +
                                            std::to_string(n_genes - 1) + ", and counts must be 1 or more");
            last = gene;
        }
    }
}

template <class Gene>
nb::tuple encode(const Model& model, const In<std::int64_t>& indptr, const In<Gene>& indices,
                 const In<std::uint32_t>& values) {
    std::vector<std::uint8_t> sections;
    std::vector<std::uint64_t> offsets{0};
    {
        const nb::gil_scoped_release release;
        check_cells<Gene>(indptr, indices, values, model.n_genes());
        for (std::size_t cell = 0; cell + 1 < indptr.shape(0); ++cell) {
            const auto begin = static_cast<std::size_t>(indptr.data()[cell]);
            const auto size = static_cast<std::size_t>(indptr.data()[cell + 1]) - begin;
            encode_head<Gene>(model, {indices.data() + begin, size}, {values.data() + begin, size}, sections);
            offsets.push_back(sections.size());
        }
    }
    return nb::make_tuple(to_array(sections), to_array(offsets));
}

nb::tuple decode(const Model& model, const In<std::uint8_t>& sections, const In<std::uint64_t>& offsets,
                 std::uint32_t capacity) {
    const std::size_t bounds = offsets.shape(0);
    bool sound = bounds > 0 && offsets.data()[bounds - 1] <= sections.shape(0);
    for (std::size_t i = 1; sound && i < bounds; ++i) sound = offsets.data()[i - 1] <= offsets.data()[i];
    if (!sound) throw std::invalid_argument("offsets must never fall and end inside the sections");
    const std::size_t most = std::min(capacity, model.n_genes());
    std::vector<std::int64_t> indptr{0};
    std::vector<std::int32_t> indices;
    std::vector<std::uint32_t> values;
    nb::object fault = nb::none();
    std::size_t used = 0;
    Fault found = Fault::none;
    {
        const nb::gil_scoped_release release;
        for (std::size_t cell = 0; cell + 1 < bounds && found == Fault::none; ++cell) {
            if (indices.size() < used + most) {
                indices.resize(std::max(2 * indices.size(), used + most));
                values.resize(indices.size());
            }
            const std::uint64_t begin = offsets.data()[cell];
            const auto size = static_cast<std::size_t>(offsets.data()[cell + 1] - begin);
            const HeadDecoded decoded = decode_head(model, {sections.data() + begin, size}, indices.data() + used,
                                                    values.data() + used, static_cast<std::uint32_t>(most));
            found = decoded.fault;
            if (found != Fault::none) break;
            used += decoded.nnz;
            indptr.push_back(static_cast<std::int64_t>(used));
        }
        indices.resize(used);
        values.resize(used);
    }
    if (found != Fault::none) fault = nb::make_tuple(indptr.size() - 1, static_cast<int>(found));
    return nb::make_tuple(fault, to_array(indptr), to_array(indices), to_array(values));
}

}  // namespace

void bind_model(nb::module_& m) {
    using nb::arg;
    m.def("model_fault", &model_fault, arg("data"));
    nb::class_<Model>(m, "HeadModel")
        .def("__init__", [](Model* self, const nb::bytes& data) { new (self) Model(open_model(data)); }, arg("data"))
        .def_prop_ro("n_genes", &Model::n_genes)
        .def("encode", &encode<std::int32_t>, arg("indptr").noconvert(), arg("indices").noconvert(),
             arg("values").noconvert())
        .def("encode", &encode<std::int64_t>, arg("indptr").noconvert(), arg("indices").noconvert(),
             arg("values").noconvert())
        .def("decode", &decode, arg("sections").noconvert(), arg("offsets").noconvert(), arg("capacity"));
}

}  // namespace cellmill
