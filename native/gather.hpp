// Batches of cells: encode many, decode many, sparse or dense, through an optional gene panel. Threads live here.
// Knows frames and spans of bytes; knows neither files nor Python.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "buffers.hpp"
#include "codec.hpp"
#include "panel.hpp"

namespace cellmill {

using Frames = std::vector<std::span<const std::uint8_t>>;  // A null span stands for a range outside its shard.

// The first row that could not be decoded, or none.
struct RowFault {
    std::size_t row = 0;
    Fault fault = Fault::none;
};

// The first of the faults that workers find, by row.
class FirstFault {
public:
    void note(RowFault fault) {
        const std::lock_guard lock(mutex_);
        if (found_.fault == Fault::none || fault.row < found_.row) found_ = fault;
    }
    RowFault found() const noexcept { return found_; }

    // Whether a row before this one is at fault already, so that nobody will see what becomes of it.
    bool is_before(std::size_t row) {
        const std::lock_guard lock(mutex_);
        return found_.fault != Fault::none && found_.row < row;
    }

private:
    std::mutex mutex_;
    RowFault found_;
};

// Rows whose frames are fetched from memory while one is decoded.
inline constexpr std::size_t kFramesAhead = 3;

inline void fetch_ahead(const Frames& frames, std::size_t row) noexcept {
    if (row + kFramesAhead >= frames.size()) return;
    const std::span<const std::uint8_t> frame = frames[row + kFramesAhead];
    const std::size_t bytes = std::min<std::size_t>(frame.size(), 4096);
    for (std::size_t at = 0; at < bytes; at += 64) __builtin_prefetch(frame.data() + at, 0, 2);
}

struct Csr {
    Buffer<std::int64_t> indptr;
    Buffer<std::int32_t> indices;
    Buffer<std::uint32_t> values;  // The bits of the kind asked for.
};

struct Encoded {
    std::vector<std::vector<std::uint8_t>> parts;
    std::vector<std::uint64_t> offsets;
};

enum class Transform : int { raw = 0, cp10k = 1, log1p_cp10k = 2 };

// Throws std::invalid_argument naming the first malformed cell.
template <class Gene>
Encoded encode_cells(std::span<const std::int64_t> indptr, std::span<const Gene> genes,
                     std::span<const std::uint32_t> counts, std::int64_t n_genes, const Model* head,
                     std::size_t threads);

// `head` is null for a store without head genes, `panel` for all genes. `totals`, where not null, gets the sum of all counts of each row, dropped ones too.
std::pair<RowFault, Csr> gather_sparse(const Frames& frames, std::uint32_t n_genes, const Model* head, const Panel* panel, Kind kind,
                                       std::uint64_t* totals, std::size_t threads);

// Nonzeros before each row, frames.size() + 1 of them where no front is at fault; reads no more than the fronts.
std::pair<RowFault, std::vector<std::int64_t>> nonzeros_before(const Frames& frames, std::uint32_t n_genes, const Model* head);

// `divisors` is null for each cell's own total; `out` holds frames.size() * columns values; `totals` as above.
RowFault gather_dense(const Frames& frames, std::uint32_t n_genes, const Model* head, const Panel* panel, Transform transform,
                      const std::uint64_t* divisors, float* out, std::uint64_t* totals, std::size_t threads);

// Throws std::invalid_argument when a gene has no hash.
template <class Gene>
void fingerprint_cells(std::span<const std::int64_t> indptr, std::span<const Gene> genes,
                       std::span<const std::uint32_t> counts, std::span<const std::uint64_t> gene_hashes,
                       std::uint64_t* out, std::size_t threads);

}  // namespace cellmill
