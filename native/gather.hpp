// Batches of cells: encode many, decode many, sparse or dense, through an optional gene panel. Threads live here.
// Knows frames and spans of bytes; knows neither files nor Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "buffers.hpp"
#include "codec.hpp"

namespace cellmill {

using Frames = std::vector<std::span<const std::uint8_t>>;  // A null span stands for a range outside its shard.

// The first row that could not be decoded, or none.
struct RowFault {
    std::size_t row = 0;
    Fault fault = Fault::none;
};

struct Panel {
    const std::int32_t* column_of = nullptr;  // One per gene, -1 to drop; null keeps genes as they are.
    std::size_t n_columns = 0;
};

struct Csr {
    Buffer<std::int64_t> indptr;
    Buffer<std::int32_t> indices;
    Buffer<std::uint32_t> values;
};

struct Encoded {
    std::vector<std::vector<std::uint8_t>> parts;
    std::vector<std::uint64_t> offsets;
};

enum class Transform : int { raw = 0, cp10k = 1, log1p_cp10k = 2 };

// Throws std::invalid_argument naming the first malformed cell.
template <class Gene>
Encoded encode_cells(std::span<const std::int64_t> indptr, std::span<const Gene> genes,
                     std::span<const std::uint32_t> counts, std::int64_t n_genes, std::size_t threads);

std::pair<RowFault, Csr> gather_sparse(const Frames& frames, std::uint32_t n_genes, const Panel& panel,
                                       std::size_t threads);

// `totals` is null for each cell's own; `out` holds frames.size() * panel.n_columns values.
RowFault gather_dense(const Frames& frames, std::uint32_t n_genes, const Panel& panel, Transform transform,
                      const std::uint64_t* totals, float* out, std::size_t threads);

// Throws std::invalid_argument when a gene has no hash.
template <class Gene>
void fingerprint_cells(std::span<const std::int64_t> indptr, std::span<const Gene> genes,
                       std::span<const std::uint32_t> counts, std::span<const std::uint64_t> gene_hashes,
                       std::uint64_t* out, std::size_t threads);

}  // namespace cellmill
