// A panel of genes, prepared once for many batches: the output column of each gene, and the same as bits.
// Knows positions alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace cellmill {

class Panel {
public:
    // `column_of` has one entry per gene of the store, -1 to drop it; columns are below `n_columns`, each named once.
    // Throws std::invalid_argument when they are not.
    Panel(std::span<const std::int32_t> column_of, std::size_t n_columns);

    std::size_t n_genes() const noexcept { return column_of_.size(); }
    std::size_t n_columns() const noexcept { return n_columns_; }
    std::size_t size() const noexcept { return size_; }          // Genes that are kept.
    bool ascending() const noexcept { return ascending_; }       // Whether columns come in the order of the genes.
    const std::int32_t* column_of() const noexcept { return column_of_.data(); }
    const std::uint32_t* bits() const noexcept { return bits_.data(); }  // Gene g is bit g mod 32 of word g / 32.

private:
    std::vector<std::int32_t> column_of_;
    std::vector<std::uint32_t> bits_;
    std::size_t n_columns_;
    std::size_t size_ = 0;
    bool ascending_ = true;
};

}  // namespace cellmill
