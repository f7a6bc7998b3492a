// From one block of a source, as its file holds it, to frames: every value proven, genes mapped and put in order,
// cells measured. Knows neither files nor Python; threads live inside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <variant>

#include "buffers.hpp"
#include "model.hpp"

namespace cellmill {

template <class... Types>
using OneOf = std::variant<const Types*...>;

using StoredIndices = OneOf<std::int32_t, std::int64_t, std::uint32_t>;
using StoredValues = OneOf<std::int8_t, std::uint8_t, std::int16_t, std::uint16_t, std::int32_t, std::uint32_t,
                           std::int64_t, std::uint64_t, float, double>;

// Cells as they are stored: genes in any order, repeated or not, values of any kind.
struct StoredCells {
    std::span<const std::int64_t> indptr;
    StoredIndices indices;
    StoredValues values;
    std::size_t stored = 0;

    std::size_t n_cells() const noexcept { return indptr.size() - 1; }
};

struct GeneMap {
    std::span<const std::int32_t> position_of;  // One per gene of the source: its place in the store, -1 for none.
    std::span<const std::uint64_t> hashes;      // One per gene of the store.
    const Model* head = nullptr;                // Of the store's head genes; null where it has none.
    std::span<const std::uint8_t> classes{};    // One per gene of the source: bit c for class c; empty where none is asked for.
};

// Classes of genes whose counts are summed apart.
inline constexpr std::size_t kClasses = 3;

// Why a block was not taken; the numbers are those of src/cellmill/kernel/ingest.py.
enum class Refusal : int { none = 0, value = 1, index = 2, sum = 3 };

struct BlockRefusal {
    Refusal why = Refusal::none;
    std::size_t cell = 0;
    std::uint64_t number = 0;  // The sum that is too large, or the stored entry whose index is out of range.
};

struct IngestedCells {
    explicit IngestedCells(const StoredCells& cells, const GeneMap& genes, std::size_t room)
        : frames(room), offsets(cells.n_cells() + 1), totals(cells.n_cells()), detected(cells.n_cells()),
          fingerprints(cells.n_cells()), umis(genes.position_of.size()), cells_with(genes.hashes.size()),
          whole(genes.classes.empty() ? 0 : cells.n_cells()) {}

    // Cells over all genes of the source, whether they have a place or not.
    struct Whole {
        explicit Whole(std::size_t n_cells) : totals(n_cells), most(n_cells), detected(n_cells), of_class(kClasses * n_cells) {}
        Buffer<std::int64_t> totals;
        Buffer<std::int64_t> most;
        Buffer<std::int32_t> detected;
        Buffer<std::int64_t> of_class;  // kClasses of each cell.
    };

    Buffer<std::uint8_t> frames;  // The first offsets[n_cells] bytes.
    Buffer<std::uint64_t> offsets;
    Buffer<std::int64_t> totals;
    Buffer<std::int32_t> detected;
    Buffer<std::uint64_t> fingerprints;
    Buffer<std::uint64_t> umis;        // Per gene of the source, matched or not.
    Buffer<std::int64_t> cells_with;   // Per gene of the store.
    std::uint32_t largest = 0;         // Of the counts of the store.
    std::uint64_t nonzeros = 0;
    std::uint64_t merged = 0;          // Stored entries that were summed into another one of the same cell and gene.
    Whole whole;                       // Empty where no classes are given.
    BlockRefusal refusal;              // When there is one, nothing else is meant to be read.
};

// Throws std::invalid_argument when the arguments contradict each other.
IngestedCells ingest_cells(const StoredCells& cells, const GeneMap& genes, std::size_t threads);

}  // namespace cellmill
