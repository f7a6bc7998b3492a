// The genes of a cell in the order of their tokens, or of any rank of columns, without sorting them cell by cell: what a
// cell becomes then does not depend on the order in which an axis lists its genes.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace cellmill {

// The rank of each column, and the column of each rank; equal ones by column.
class ColumnRanks {
public:
    // less(a, b) says whether column a comes before column b.
    template <class Less>
    ColumnRanks(std::size_t n_columns, const Less& less) : column_(n_columns), rank_(n_columns) {
        std::iota(column_.begin(), column_.end(), 0U);
        if (!std::is_sorted(column_.begin(), column_.end(), less)) std::stable_sort(column_.begin(), column_.end(), less);
        for (std::size_t rank = 0; rank < n_columns; ++rank) rank_[column_[rank]] = static_cast<std::uint32_t>(rank);
    }

    std::size_t size() const noexcept { return rank_.size(); }
    std::uint32_t of(std::size_t column) const noexcept { return rank_[column]; }
    std::uint32_t column(std::size_t rank) const noexcept { return column_[rank]; }

private:
    std::vector<std::uint32_t> column_;
    std::vector<std::uint32_t> rank_;
};

inline ColumnRanks ranks_of_tokens(std::span<const std::int64_t> token_of) {
    return {token_of.size(), [token_of](std::uint32_t a, std::uint32_t b) { return token_of[a] < token_of[b]; }};
}

// A set of ranks, each with a number, that is walked in ascending order: a bit for each rank, linear in what it holds.
class RankSet {
public:
    explicit RankSet(std::size_t n) : bits_((n + 63) / 64), number_(n) {}

    void add(std::uint32_t rank, std::uint32_t number) noexcept {
        bits_[rank / 64] |= std::uint64_t{1} << (rank % 64);
        number_[rank] = number;
    }
    bool has(std::uint32_t rank) const noexcept { return (bits_[rank / 64] >> (rank % 64)) & 1; }

    // Calls each(rank, number), and leaves the set empty.
    template <class Each>
    void drain(const Each& each) {
        for (std::size_t word = 0; word < bits_.size(); ++word) {
            for (std::uint64_t left = bits_[word]; left != 0; left &= left - 1) {
                const auto rank = static_cast<std::uint32_t>(word * 64 + static_cast<std::size_t>(std::countr_zero(left)));
                each(rank, number_[rank]);
            }
            bits_[word] = 0;
        }
    }

private:
    std::vector<std::uint64_t> bits_;
    std::vector<std::uint32_t> number_;
};

}  // namespace cellmill
