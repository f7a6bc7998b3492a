// With the bind_*.cpp files the only one that knows Python: NumPy arrays to spans and back, GIL released around the work.
// Shapes and dtypes have been checked by cellmill.kernel; what would be unsafe is checked again here or below.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "bind_model.hpp"
#include "bind_ingest.hpp"
#include "bind_tokens.hpp"
#include "encoded_cells.hpp"
#include "gather.hpp"
#include "model.hpp"
#include "order.hpp"
#include "random.hpp"
#include "rows.hpp"

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

template <class To>
Out<To> to_array_as(Buffer<std::uint32_t>&& buffer) {
    static_assert(sizeof(To) == sizeof(std::uint32_t));
    auto owner = std::make_unique<Buffer<std::uint32_t>>(std::move(buffer));
    void* data = owner->data();
    const std::size_t size = owner->size();
    nb::capsule capsule(owner.get(), [](void* p) noexcept { delete static_cast<Buffer<std::uint32_t>*>(p); });
    owner.release();
    return Out<To>(static_cast<To*>(data), {size}, capsule);
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
    ~Shards() = default;

    const Frames& frames() const noexcept { return frames_; }

private:
    static constexpr std::uint8_t kNothing[1] = {0};

    // Given back whatever happens, also when the constructor of Shards throws.
    struct View {
        Py_buffer bytes{};
        bool open = false;
        View() = default;
        View(const View&) = delete;
        View& operator=(const View&) = delete;
        ~View() {
            if (open) PyBuffer_Release(&bytes);
        }
    };

    const Py_buffer& open(const nb::sequence& shards, std::size_t number) {
        const nb::object shard = nb::steal(PySequence_GetItem(shards.ptr(), static_cast<Py_ssize_t>(number)));
        if (!shard.is_valid()) throw nb::python_error();
        auto held = std::make_unique<View>();
        if (PyObject_GetBuffer(shard.ptr(), &held->bytes, PyBUF_SIMPLE) != 0) throw nb::python_error();
        held->open = true;
        if (held->bytes.itemsize != 1) throw std::invalid_argument("shards must be arrays of uint8");
        views_.push_back(std::move(held));
        return views_.back()->bytes;
    }

    std::vector<const Py_buffer*> slots_;
    std::vector<std::unique_ptr<View>> views_;
    Frames frames_;
};

std::uint32_t gene_count(std::int64_t n_genes) {
    if (n_genes < 0 || n_genes > 0x7FFFFFFF) throw std::invalid_argument("n_genes must lie in 0..2^31-1");
    return static_cast<std::uint32_t>(n_genes);
}

// None stands for all genes.
const Panel* to_panel(const nb::object& panel, std::int64_t n_genes) {
    gene_count(n_genes);
    if (panel.is_none()) return nullptr;
    const Panel* given = nb::cast<const Panel*>(panel);
    if (given->n_genes() != static_cast<std::size_t>(n_genes)) throw std::invalid_argument("the panel must have n_genes entries");
    return given;
}

std::size_t row_count(const In<std::int64_t>& shard_of, const In<std::int64_t>& start, const In<std::int64_t>& stop) {
    if (shard_of.shape(0) != start.shape(0) || start.shape(0) != stop.shape(0))
        throw std::invalid_argument("shard_of, start and stop must be of one length");
    return start.shape(0);
}

// None stands for a store without head genes.
const Model* to_head(const nb::object& head, std::int64_t n_genes) {
    gene_count(n_genes);
    if (head.is_none()) return nullptr;
    const Model* given = nb::cast<const Model*>(head);
    if (given->n_genes() > static_cast<std::uint64_t>(n_genes)) throw std::invalid_argument("there are more head genes than genes");
    return given;
}

// A table and the arrays that its shards lie in.
// Lets other threads run Python meanwhile, but not for some microseconds: to get the lock back may take far longer.
class ReleasedWhenLong {
public:
    explicit ReleasedWhenLong(std::size_t items) {
        if (items > 8192) release_.emplace();
    }

private:
    std::optional<nb::gil_scoped_release> release_;
};

struct HeldRows {
    explicit HeldRows(std::span<const std::int64_t> firsts) : table(firsts) {}

    RowTable table;
    std::vector<In<std::uint8_t>> frames;
    std::vector<In<std::uint32_t>> starts;
    std::vector<In<std::uint16_t>> steps;
    std::vector<In<std::uint64_t>> numbers;
};

template <class T>
Out<T> copied(std::span<const T> from) {
    Buffer<T> made(from.size());
    std::copy(from.begin(), from.end(), made.data());
    return to_array(std::move(made));
}

nb::object to_fault(const RowFault& fault) {
    if (fault.fault == Fault::none) return nb::none();
    return nb::make_tuple(fault.row, static_cast<int>(fault.fault));
}

template <class Gene>
nb::tuple encode(const In<std::int64_t>& indptr, const In<Gene>& indices, const In<std::uint32_t>& values,
                 std::int64_t n_genes, const nb::object& head, std::size_t threads) {
    const Model* const model = to_head(head, n_genes);
    if (indices.shape(0) != values.shape(0)) throw std::invalid_argument("indices and values must be of one length");
    std::optional<Buffer<std::uint8_t>> frames;
    std::optional<Buffer<std::uint64_t>> offsets;
    {
        const nb::gil_scoped_release release;
        const Encoded encoded = encode_cells<Gene>(view(indptr), view(indices), view(values), n_genes, model, threads);
        offsets.emplace(encoded.offsets.size());
        std::copy(encoded.offsets.begin(), encoded.offsets.end(), offsets->data());
        frames.emplace(encoded.offsets.back());
        std::uint8_t* to = frames->data();
        for (const auto& part : encoded.parts) to = std::copy(part.begin(), part.end(), to);
    }
    return nb::make_tuple(to_array(std::move(*frames)), to_array(std::move(*offsets)));
}

// (fault, indptr, indices, values, totals or None). `find` gives the frames, without the GIL.
template <class Find>
nb::tuple gather_found(const Find& find, std::size_t rows, std::int64_t n_genes, const nb::object& head, const nb::object& panel, int kind,
                       bool with_totals, std::size_t threads) {
    if (kind < 0 || kind > 2) throw std::invalid_argument("kind must be 0, 1 or 2");
    const Panel* const columns = to_panel(panel, n_genes);
    const Model* const model = to_head(head, n_genes);
    std::optional<Buffer<std::uint64_t>> totals;
    if (with_totals) totals.emplace(rows);
    auto [fault, csr] = [&] {
        const nb::gil_scoped_release release;
        const Frames& frames = find();
        return gather_sparse(frames, gene_count(n_genes), model, columns, static_cast<Kind>(kind),
                             totals ? totals->data() : nullptr, threads);
    }();
    nb::object values;
    if (kind == static_cast<int>(Kind::float32))
        values = nb::cast(to_array_as<float>(std::move(csr.values)));
    else if (kind == static_cast<int>(Kind::int32))
        values = nb::cast(to_array_as<std::int32_t>(std::move(csr.values)));
    else
        values = nb::cast(to_array(std::move(csr.values)));
    return nb::make_tuple(to_fault(fault), to_array(std::move(csr.indptr)), to_array(std::move(csr.indices)), values,
                          totals ? nb::cast(to_array(std::move(*totals))) : nb::none());
}

nb::tuple gather(const nb::sequence& shards, const In<std::int64_t>& shard_of, const In<std::int64_t>& start,
                 const In<std::int64_t>& stop, std::int64_t n_genes, const nb::object& head, const nb::object& panel,
                 int kind, bool totals,
                 std::size_t threads) {
    const std::size_t rows = row_count(shard_of, start, stop);
    const Shards opened(shards, shard_of.data(), start.data(), stop.data(), rows);
    return gather_found([&]() -> const Frames& { return opened.frames(); }, rows, n_genes, head, panel, kind, totals, threads);
}

// (fault, nonzeros of each row up to the first that is at fault).
nb::tuple frame_sizes(const nb::sequence& shards, const In<std::int64_t>& shard_of, const In<std::int64_t>& start,
                      const In<std::int64_t>& stop, std::int64_t n_genes, const nb::object& head) {
    const Model* const model = to_head(head, n_genes);
    const Shards opened(shards, shard_of.data(), start.data(), stop.data(), row_count(shard_of, start, stop));
    auto [fault, before] = [&] {
        const nb::gil_scoped_release release;
        return nonzeros_before(opened.frames(), gene_count(n_genes), model);
    }();
    Buffer<std::int64_t> sizes(before.size() - 1);
    for (std::size_t row = 0; row + 1 < before.size(); ++row) sizes.data()[row] = before[row + 1] - before[row];
    return nb::make_tuple(to_fault(fault), to_array(std::move(sizes)));
}

nb::tuple gather_rows(const HeldRows& held, const In<std::int64_t>& rows, std::int64_t n_genes, const nb::object& head, const nb::object& panel,
                      int kind, bool totals, std::size_t threads) {
    return gather_found([&] { return held.table.find(view(rows)); }, rows.shape(0), n_genes, head, panel, kind, totals, threads);
}

using DenseOut = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Divisors = std::optional<In<std::uint64_t>>;
using TotalsOut = std::optional<nb::ndarray<std::uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>>;

template <class Find>
nb::object gather_dense_found(const Find& find, std::size_t rows, std::int64_t n_genes, const nb::object& head, const nb::object& panel,
                              int transform, const Divisors& divisors, const DenseOut& out,
                              const TotalsOut& totals, std::size_t threads) {
    const Panel* const columns = to_panel(panel, n_genes);
    const Model* const model = to_head(head, n_genes);
    const std::size_t width = columns == nullptr ? static_cast<std::size_t>(n_genes) : columns->n_columns();
    if (out.shape(0) != rows || out.shape(1) != width || (divisors && divisors->shape(0) != rows) || (totals && totals->shape(0) != rows) || transform < 0 ||
        transform > 2)
        throw std::invalid_argument("out and totals must have one row per frame, and out a column per gene");
    const RowFault fault = [&] {
        const nb::gil_scoped_release release;
        const Frames& frames = find();
        return gather_dense(frames, gene_count(n_genes), model, columns, static_cast<Transform>(transform),
                            divisors ? divisors->data() : nullptr, out.data(), totals ? totals->data() : nullptr,
                            threads);
    }();
    return to_fault(fault);
}

nb::object gather_shards_dense(const nb::sequence& shards, const In<std::int64_t>& shard_of,
                               const In<std::int64_t>& start, const In<std::int64_t>& stop, std::int64_t n_genes,
                               const nb::object& head, const nb::object& panel, int transform, const Divisors& divisors, const DenseOut& out,
                               const TotalsOut& totals, std::size_t threads) {
    const std::size_t rows = row_count(shard_of, start, stop);
    const Shards opened(shards, shard_of.data(), start.data(), stop.data(), rows);
    return gather_dense_found([&]() -> const Frames& { return opened.frames(); }, rows, n_genes, head, panel, transform, divisors,
                              out, totals, threads);
}

nb::object gather_rows_dense(const HeldRows& held, const In<std::int64_t>& rows, std::int64_t n_genes,
                             const nb::object& head, const nb::object& panel, int transform, const Divisors& divisors, const DenseOut& out,
                               const TotalsOut& totals, std::size_t threads) {
    return gather_dense_found([&] { return held.table.find(view(rows)); }, rows.shape(0), n_genes, head, panel, transform,
                              divisors, out, totals, threads);
}

void put_shard(HeldRows& held, std::size_t shard, const In<std::uint8_t>& frames, const In<std::uint32_t>& starts,
               const In<std::uint16_t>& steps) {
    held.table.put(shard, {view(frames), view(starts), view(steps)});
    held.frames.push_back(frames);
    held.starts.push_back(starts);
    held.steps.push_back(steps);
}

Out<std::uint64_t> numbers_of_rows(const HeldRows& held, const In<std::int64_t>& rows) {
    Buffer<std::uint64_t> out(rows.shape(0));
    {
        const nb::gil_scoped_release release;  // They may have to be read from a disk.
        held.table.numbers(view(rows), out.data());
    }
    return to_array(std::move(out));
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
        const ReleasedWhenLong release(from.shape(0));
        for (std::size_t i = 0; i < from.shape(0); ++i) out.data()[i] = each(from.data()[i]);
    }
    return to_array(std::move(out));
}

Out<std::uint64_t> permute(const In<std::uint64_t>& positions, std::uint64_t n, std::uint64_t key) {
    for (std::size_t i = 0; i < positions.shape(0); ++i)
        if (positions.data()[i] >= n) throw std::invalid_argument("positions must be below n");
    Buffer<std::uint64_t> images(positions.shape(0));
    {
        const ReleasedWhenLong release(positions.shape(0));
        KeyedBijection(n, key).map(positions.data(), positions.shape(0), images.data());
    }
    return to_array(std::move(images));
}

}  // namespace

NB_MODULE(_native, m) {
    using nb::arg;
    m.doc() = "The native kernel; call it through cellmill.kernel.";
    // A loader that others hold on to when the interpreter ends (a worker of torch's DataLoader) is no leak worth a page of text.
    nb::set_leak_warnings(false);
    bind_ingest(m);
    m.def("encode", &encode<std::int32_t>, arg("indptr").noconvert(), arg("indices").noconvert(),
          arg("values").noconvert(), arg("n_genes"), arg("head").none(), arg("threads"));
    m.def("encode", &encode<std::int64_t>, arg("indptr").noconvert(), arg("indices").noconvert(),
          arg("values").noconvert(), arg("n_genes"), arg("head").none(), arg("threads"));
    nb::class_<Panel>(m, "Panel")
        .def("__init__",
             [](Panel* self, const In<std::int32_t>& column_of, std::size_t n_columns) {
                 new (self) Panel(view(column_of), n_columns);
             },
             arg("column_of").noconvert(), arg("n_columns"));
    nb::class_<HeldRows>(m, "RowTable")
        .def("__init__",
             [](HeldRows* self, const In<std::int64_t>& firsts) { new (self) HeldRows(view(firsts)); },
             arg("firsts").noconvert())
        .def("put", &put_shard, arg("shard"), arg("frames").noconvert(), arg("starts").noconvert(),
             arg("steps").noconvert())
        .def("missing", [](const HeldRows& self, const In<std::int64_t>& rows) { return self.table.missing(view(rows)); },
             arg("rows").noconvert())
        .def("put_numbers",
             [](HeldRows& self, std::size_t shard, const In<std::uint64_t>& numbers) {
                 self.table.put_numbers(shard, view(numbers));
                 self.numbers.push_back(numbers);
             },
             arg("shard"), arg("numbers").noconvert())
        .def("missing_numbers",
             [](const HeldRows& self, const In<std::int64_t>& rows) { return self.table.missing_numbers(view(rows)); },
             arg("rows").noconvert())
        .def("numbers", &numbers_of_rows, arg("rows").noconvert())
        .def("will_need",
             [](const HeldRows& self, const In<std::int64_t>& rows) {
                 const nb::gil_scoped_release release;
                 self.table.will_need(view(rows));
             },
             arg("rows").noconvert());
    nb::class_<EncodedCells>(m, "EncodedCells")
        .def("__init__",
             [](EncodedCells* self, const HeldRows& held, const In<std::int64_t>& rows, std::int64_t n_genes, const nb::object& head) {
                 const Model* const model = to_head(head, n_genes);
                 const nb::gil_scoped_release release;
                 new (self) EncodedCells(held.table.find(view(rows)), gene_count(n_genes), model);
             },
             nb::keep_alive<1, 2>(), nb::keep_alive<1, 5>(), arg("table"), arg("rows").noconvert(), arg("n_genes"), arg("head").none())
        .def_prop_ro("indptr", [](const EncodedCells& self) { return copied(self.indptr()); }, nb::rv_policy::move)
        .def_prop_ro("totals", [](const EncodedCells& self) { return copied(self.totals()); }, nb::rv_policy::move)
        .def_prop_ro("fault", [](const EncodedCells& self) { return to_fault(self.fault()); })
        .def("gather",
             [](EncodedCells& self, std::size_t threads) {
                 auto [fault, csr] = [&] {
                     const nb::gil_scoped_release release;
                     return self.gather(threads);
                 }();
                 return nb::make_tuple(to_fault(fault), to_array(std::move(csr.indptr)), to_array(std::move(csr.indices)),
                                       to_array(std::move(csr.values)));
             },
             arg("threads"));
    m.def("gather", &gather, arg("shards"), arg("shard_of").noconvert(), arg("start").noconvert(),
          arg("stop").noconvert(), arg("n_genes"), arg("head").none(), arg("panel").none(), arg("kind"), arg("totals"), arg("threads"));
    m.def("frame_sizes", &frame_sizes, arg("shards"), arg("shard_of").noconvert(), arg("start").noconvert(),
          arg("stop").noconvert(), arg("n_genes"), arg("head").none());
    m.def("gather_rows", &gather_rows, arg("table"), arg("rows").noconvert(), arg("n_genes"), arg("head").none(), arg("panel").none(),
          arg("kind"), arg("totals"), arg("threads"));
    m.def("gather_dense", &gather_shards_dense, arg("shards"), arg("shard_of").noconvert(), arg("start").noconvert(),
          arg("stop").noconvert(), arg("n_genes"), arg("head").none(), arg("panel").none(), arg("transform"), arg("divisors").noconvert().none(),
          arg("out").noconvert(), arg("totals").noconvert().none(), arg("threads"));
    m.def("gather_rows_dense", &gather_rows_dense, arg("table"), arg("rows").noconvert(), arg("n_genes"), arg("head").none(),
          arg("panel").none(), arg("transform"), arg("divisors").noconvert().none(), arg("out").noconvert(),
          arg("totals").noconvert().none(), arg("threads"));
    m.def("vectors_in_use", [] { return static_cast<int>(vectors_in_use()); });
    m.def("limit_vectors", [](int most) { limit_vectors(static_cast<Vectors>(most)); }, arg("most"));
    m.def("fingerprint", &fingerprint<std::int32_t>, arg("indptr").noconvert(), arg("indices").noconvert(),
          arg("values").noconvert(), arg("gene_hashes").noconvert(), arg("threads"));
    m.def("fingerprint", &fingerprint<std::int64_t>, arg("indptr").noconvert(), arg("indices").noconvert(),
          arg("values").noconvert(), arg("gene_hashes").noconvert(), arg("threads"));
    bind_model(m);
    bind_tokens(m);
    m.def("permute", &permute, arg("positions").noconvert(), arg("n"), arg("key"));
    m.def("pooled", [](std::size_t bytes) { return to_array(Buffer<std::uint8_t>(bytes)); }, arg("bytes"));
    m.def("mix64", [](const In<std::uint64_t>& x) { return map_u64(x, [](std::uint64_t v) { return mix64(v); }); },
          arg("x").noconvert());
    m.def("keyed_u64",
          [](std::uint64_t key, const In<std::uint64_t>& uids, std::uint64_t counter) {
              const std::uint64_t stream = stream_key(key, counter);
              return map_u64(uids, [stream](std::uint64_t uid) { return keyed_u64(stream, uid); });
          },
          arg("key"), arg("uids").noconvert(), arg("counter"));
}
