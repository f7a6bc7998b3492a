// The order of a cell's genes by keys that are known beforehand, without sorting: a bit for each key, whose rank is counted.
// Knows arrays of one cell. Knows neither what a key means nor Python.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace cellmill {

// What is known of a column: one line of the cache, since nothing but looking it up takes time. KEYED of kernel/ranks.py.
struct KeyedColumn {
    static constexpr std::size_t kCounts = 24;
    static constexpr std::uint16_t kNoKey = 0xFFFF;

    double divisor;
    std::int64_t token;
    std::array<std::uint16_t, kCounts> keys;  // Of count 1, 2 and so on: a smaller key comes first, equal ones in any order.
};
static_assert(sizeof(KeyedColumn) == 64);

class KeyOrder {
public:
    KeyOrder() : bits_(kWords), before_(kWords) { bits_.back() = std::uint64_t{1} << 63; }

    // Orders the entries 0..n-1 of a cell: most are in `ordered` then, by ascending keys of which each is there once; `rest`
    // has those of a key that another has, and those without, as they stood. Writes count / divisor and token of each entry.
    // False where the rest became too long to be few.
    bool order(const KeyedColumn* table, const std::int32_t* columns, const std::uint32_t* counts, std::size_t n, double* values,
               std::int64_t* tokens);

    std::span<const std::uint32_t> ordered() const noexcept { return {ordered_.data(), n_}; }
    std::span<std::uint32_t> rest() noexcept { return {rest_.data(), n_rest_}; }

private:
    static constexpr std::size_t kWords = 1024;  // 2^16 keys.
    static constexpr std::size_t kShareOfRest = 8;

    std::vector<std::uint64_t> bits_;    // Of each key, whether an entry has it; between calls kNoKey alone.
    std::vector<std::uint32_t> before_;  // Keys below those of a word.
    std::vector<std::uint16_t> keys_;    // Of each entry.
    std::vector<std::uint32_t> ordered_;
    std::vector<std::uint32_t> rest_;
    std::size_t n_ = 0;
    std::size_t n_rest_ = 0;
};

}  // namespace cellmill
