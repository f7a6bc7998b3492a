// The only file that knows Python: NumPy arrays to spans and back, GIL released around the work.
// Shapes and dtypes have been checked by cellmill.kernel; what would be unsafe is checked again here or below.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "gather.hpp"
#include "order.hpp"
#include "random.hpp"

namespace nb = nanobind;
using namespace cellmill;

namespace {

template <class T>
using In = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<nb::numpy, T, nb::ndim<1>, nb::c_contig>;

template <class T>
std::span<const T> view(const In<T>& array) {
    return {array.data(), array.shape(0)};
}

template <class T>
Out<T> to_array(Buffer<T>&& buffer) {
    auto owner = std::make_unique<Buffer<T>>(std::move(buffer));
    T* data = owner->data();
    const std::size_t size = owner->size();
    nb::capsule capsule(owner.get(), [](void* p) noexcept { delete static_cast<Buffer<T>*>(p); });
    owner.release();
    return Out<T>(data, {size}, capsule);
}

// Holds the buffers of the shards that a batch names, for as long as it is being read.
class Shards {
public:
    Shards(const nb::sequence& shards, const std::int64_t* shard_of, const std::int64_t* start,
           const std::int64_t* stop, std::size_t rows)
        : slots_(nb::len(shards), nullptr) {
        views_.reserve(std::min(rows, slots_.size()));
        frames_.reserve(rows);
        for (std::size_t row = 0; row < rows; ++row) {
            const std::size_t number = static_cast<std::size_t>(shard_of[row]);
            if (number >= slots_.size()) throw std::invalid_argument("shard_of names a shard that is not there");
            if (slots_[number] == nullptr) slots_[number] = &open(shards, number);
            const Py_buffer& bytes = *slots_[number];
            if (start[row] < 0 || stop[row] < start[row] || stop[row] > bytes.len)
                frames_.emplace_back();
            else
                frames_.emplace_back(bytes.len == 0 ? kNothing : static_cast<const std::uint8_t*>(bytes.buf) + start[row],
                                     static_cast<std::size_t>(stop[row] - start[row]));
        }
    }
    Shards(const Shards&) = delete;
    Shards& operator=(const Shards&) = delete;
    ~Shards() {
        for (const auto& held : views_) PyBuffer_Release(held.get());
    }

    const Frames& frames() const noexcept { return frames_; }

private:
    static constexpr std::uint8_t kNothing[1] = {0};

    const Py_buffer& open(const nb::sequence& shards, std::size_t number) {
        const nb::object shard = nb::steal(PySequence_GetItem(shards.ptr(), static_cast<Py_ssize_t>(number)));
        if (!shard.is_valid()) throw nb::python_error();
        auto held = std::make_unique<Py_buffer>();
        if (PyObject_GetBuffer(shard.ptr(), held.get(), PyBUF_SIMPLE) != 0) throw nb::python_error();
        if (held->itemsize != 1) {
            PyBuffer_Release(held.get());
            throw std::invalid_argument("shards must be arrays of uint8");
        }
        views_.push_back(std::move(held));
        return *views_.back();
    }

    std::vector<const Py_buffer*> slots_;
    std::vector<std::unique_ptr<Py_buffer>> views_;
    Frames frames_;
};

using Panel32 = std::optional<In<std::int32_t>>;

Panel to_panel(const Panel32& panel, std::int64_t n_genes, std::size_t n_columns) {
    if (n_genes < 0 || n_genes > 0x7FFFFFFF) throw std::invalid_argument("n_genes must lie in 0..2^31-1");
    if (!panel) return {nullptr, n_columns};
    if (panel->shape(0) != static_cast<std::size_t>(n_genes)) throw std::invalid_argument("panel must have n_genes entries");
    return {panel->data(), n_columns};
}

std::size_t row_count(const In<std::int64_t>& shard_of, const In<std::int64_t>& start, const In<std::int64_t>& stop) {
    if (shard_of.shape(0) != start.shape(0) || start.shape(0) != stop.shape(0))
        throw std::invalid_argument("shard_of, start and stop must be of one length");
    return start.shape(0);
}

nb::object to_fault(const RowFault& fault) {
    if (fault.fault == Fault::none) return nb::none();
    return nb::make_tuple(fault.row, static_cast<int>(fault.fault));
}

template <class Gene>
nb::tuple encode(const In<std::int64_t>& indptr, const In<Gene>& indices, const In<std::uint32_t>& values,
                 std::int64_t n_genes, std::size_t threads) {
    if (indices.shape(0) != values.shape(0)) throw std::invalid_argument("indices and values must be of one length");
    std::optional<Buffer<std::uint8_t>> frames;
    std::optional<Buffer<std::uint64_t>> offsets;
    {
        const nb::gil_scoped_release release;
        const Encoded encoded = encode_cells<Gene>(view(indptr), view(indices), view(values), n_genes, threads);
        offsets.emplace(encoded.offsets.size());
        std::copy(encoded.offsets.begin(), encoded.offsets.end(), offsets->data());
        frames.emplace(encoded.offsets.back());
        std::uint8_t* to = frames->data();
        for (const auto& part : encoded.parts) to = std::copy(part.begin(), part.end(), to);
    }
    return nb::make_tuple(to_array(std::move(*frames)), to_array(std::move(*offsets)));
}

nb::tuple gather(const nb::sequence& shards, const In<std::int64_t>& shard_of, const In<std::int64_t>& start,
                 const In<std::int64_t>& stop, std::int64_t n_genes, const Panel32& panel, std::size_t n_columns,
                 std::size_t threads) {
    const std::size_t rows = row_count(shard_of, start, stop);
    const Panel columns = to_panel(panel, n_genes, n_columns);
    const Shards opened(shards, shard_of.data(), start.data(), stop.data(), rows);
    auto [fault, csr] = [&] {
        const nb::gil_scoped_release release;
        return gather_sparse(opened.frames(), static_cast<std::uint32_t>(n_genes), columns, threads);
    }();
    return nb::make_tuple(to_fault(fault), to_array(std::move(csr.indptr)), to_array(std::move(csr.indices)),
                          to_array(std::move(csr.values)));
}

nb::object gather_rows_dense(const nb::sequence& shards, const In<std::int64_t>& shard_of,
                             const In<std::int64_t>& start, const In<std::int64_t>& stop, std::int64_t n_genes,
                             const Panel32& panel, int transform, const std::optional<In<std::uint64_t>>& totals,
                             const nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>& out,
                             std::size_t threads) {
    const std::size_t rows = row_count(shard_of, start, stop);
    const Panel columns = to_panel(panel, n_genes, out.shape(1));
    if (out.shape(0) != rows || (totals && totals->shape(0) != rows) || transform < 0 || transform > 2)
        throw std::invalid_argument("out and totals must have one row per frame");
    const Shards opened(shards, shard_of.data(), start.data(), stop.data(), rows);
    const RowFault fault = [&] {
        const nb::gil_scoped_release release;
        return gather_dense(opened.frames(), static_cast<std::uint32_t>(n_genes), columns,
                            static_cast<Transform>(transform), totals ? totals->data() : nullptr, out.data(), threads);
    }();
    return to_fault(fault);
}

template <class Gene>
Out<std::uint64_t> fingerprint(const In<std::int64_t>& indptr, const In<Gene>& indices, const In<std::uint32_t>& values,
                               const In<std::uint64_t>& gene_hashes, std::size_t threads) {
    if (indices.shape(0) != values.shape(0) || indptr.shape(0) == 0)
        throw std::invalid_argument("indices and values must be of one length, and indptr must not be empty");
    Buffer<std::uint64_t> out(indptr.shape(0) - 1);
    {
        const nb::gil_scoped_release release;
        fingerprint_cells<Gene>(view(indptr), view(indices), view(values), view(gene_hashes), out.data(), threads);
    }
    return to_array(std::move(out));
}

template <class Each>
Out<std::uint64_t> map_u64(const In<std::uint64_t>& from, const Each& each) {
    Buffer<std::uint64_t> out(from.shape(0));
    {
        const nb::gil_scoped_release release;
        for (std::size_t i = 0; i < from.shape(0); ++i) out.data()[i] = each(from.data()[i]);
    }
    return to_array(std::move(out));
}

Out<std::uint64_t> permute(const In<std::uint64_t>& positions, std::uint64_t n, std::uint64_t key) {
    for (std::size_t i = 0; i < positions.shape(0); ++i)
        if (positions.data()[i] >= n) throw std::invalid_argument("positions must be below n");
    const KeyedBijection image(n, key);
    return map_u64(positions, image);
}

}  // namespace

NB_MODULE(_native, m) {
    using nb::arg;
    m.doc() = "The native kernel; call it through cellmill.kernel.";
    m.def("encode", &encode<std::int32_t>, arg("indptr").noconvert(), arg("indices").noconvert(),
          arg("values").noconvert(), arg("n_genes"), arg("threads"));
    m.def("encode", &encode<std::int64_t>, arg("indptr").noconvert(), arg("indices").noconvert(),
          arg("values").noconvert(), arg("n_genes"), arg("threads"));
    m.def("gather", &gather, arg("shards"), arg("shard_of").noconvert(), arg("start").noconvert(),
          arg("stop").noconvert(), arg("n_genes"), arg("panel").noconvert().none(), arg("n_columns"), arg("threads"));
    m.def("gather_dense", &gather_rows_dense, arg("shards"), arg("shard_of").noconvert(), arg("start").noconvert(),
          arg("stop").noconvert(), arg("n_genes"), arg("panel").noconvert().none(), arg("transform"),
          arg("totals").noconvert().none(), arg("out").noconvert(), arg("threads"));
    m.def("fingerprint", &fingerprint<std::int32_t>, arg("indptr").noconvert(), arg("indices").noconvert(),
          arg("values").noconvert(), arg("gene_hashes").noconvert(), arg("threads"));
    m.def("fingerprint", &fingerprint<std::int64_t>, arg("indptr").noconvert(), arg("indices").noconvert(),
          arg("values").noconvert(), arg("gene_hashes").noconvert(), arg("threads"));
    m.def("permute", &permute, arg("positions").noconvert(), arg("n"), arg("key"));
    m.def("mix64", [](const In<std::uint64_t>& x) { return map_u64(x, [](std::uint64_t v) { return mix64(v); }); },
          arg("x").noconvert());
    m.def("keyed_u64",
          [](std::uint64_t key, const In<std::uint64_t>& uids, std::uint64_t counter) {
              const std::uint64_t stream = stream_key(key, counter);
              return map_u64(uids, [stream](std::uint64_t uid) { return keyed_u64(stream, uid); });
          },
          arg("key"), arg("uids").noconvert(), arg("counter"));
}
