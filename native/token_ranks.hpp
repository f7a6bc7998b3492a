// The genes of a cell in the order of their tokens, or of any rank of columns, without sorting them cell by cell: what a
// cell becomes then does not depend on the order in which an axis lists its genes.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
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

// A gene of a cell in an order by count: the largest first, equal ones by a number.
struct CountedGene {
    std::uint64_t key;
    std::uint32_t place;

    CountedGene() = default;
    CountedGene(std::uint32_t count, std::uint32_t number, std::uint32_t place_of) noexcept
        : key((std::uint64_t{~count} << 32) | number), place(place_of) {}
    std::uint32_t count() const noexcept { return ~static_cast<std::uint32_t>(key >> 32); }
};

// Sorts genes by key in linear time but for counts of 255 and more; genes of equal keys stay in their order.
class CountSorter {
public:
    void sort(std::vector<CountedGene>& genes) {
        if (genes.size() < 64) {
            std::stable_sort(genes.begin(), genes.end(), by_key);
            return;
        }
        other_.resize(genes.size());
        for (int shift = 0; shift < 32; shift += 8)
            pass(genes, [shift](const CountedGene& gene) { return static_cast<std::uint8_t>(gene.key >> shift); });
        pass(genes, [](const CountedGene& gene) { return static_cast<std::uint8_t>(255 - std::min(gene.count(), 255U)); });
        const auto small = std::find_if(genes.begin(), genes.end(), [](const CountedGene& gene) { return gene.count() < 255; });
        std::stable_sort(genes.begin(), small, by_key);
    }

private:
    static bool by_key(const CountedGene& a, const CountedGene& b) noexcept { return a.key < b.key; }

    template <class Digit>
    void pass(std::vector<CountedGene>& genes, const Digit& digit) {
        std::array<std::uint32_t, 256> at{};
        for (const CountedGene& gene : genes) ++at[digit(gene)];
        if (at[digit(genes.front())] == genes.size()) return;
        std::uint32_t upto = 0;
        for (std::uint32_t& bucket : at) upto += std::exchange(bucket, upto);
        for (const CountedGene& gene : genes) other_[at[digit(gene)]++] = gene;
        genes.swap(other_);
    }

    std::vector<CountedGene> other_;
};

}  // namespace cellmill
