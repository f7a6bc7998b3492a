// Where the frames of a store's cells lie: shards that are opened one by one, found by row id. Knows spans of bytes;
// knows neither files nor Python. Rows may be found by several threads while another one puts a shard in.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "gather.hpp"

namespace cellmill {

// One shard: its frames, and where each begins. Without steps `starts` has an entry more than there are cells; with them
// cell i begins at starts[i / 16] + steps[i].
struct ShardSpan {
    std::span<const std::uint8_t> frames;
    std::span<const std::uint32_t> starts;
    std::span<const std::uint16_t> steps;

    std::uint64_t start_of(std::uint64_t cell) const noexcept {
        return steps.empty() ? starts[cell] : std::uint64_t{starts[cell >> 4]} + steps[cell];
    }

    // Asks for what start_of will read.
    void fetch_start(std::uint64_t cell) const noexcept {
        if (steps.empty()) {
            __builtin_prefetch(&starts[cell]);
        } else {
            __builtin_prefetch(&starts[cell >> 4]);
            __builtin_prefetch(&steps[cell]);
        }
    }
};

class RowTable {
public:
    // `firsts` is the row id of each shard's first cell, and at the end the number of cells. Throws
    // std::invalid_argument when they do not start at 0 or fall.
    explicit RowTable(std::span<const std::int64_t> firsts);

    std::int64_t n_rows() const noexcept { return firsts_.back(); }
    std::size_t n_shards() const noexcept { return firsts_.size() - 1; }

    // The bytes must live as long as the table. Throws std::invalid_argument when the arrays do not fit the shard.
    void put(std::size_t shard, const ShardSpan& span);

    // Shards that hold some of the rows and were not put in, ascending. Throws std::out_of_range for a row that is none.
    std::vector<std::size_t> missing(std::span<const std::int64_t> rows) const;

    // Frames of rows whose shards are all there; a null span where a shard's offsets contradict its length.
    Frames find(std::span<const std::int64_t> rows) const;

    // Asks the system to read the frames of these rows, without waiting for them; of shards that are there.
    void will_need(std::span<const std::int64_t> rows) const;

    // Puts in a number for each cell of a shard, apart from its frames; as `put`.
    void put_numbers(std::size_t shard, std::span<const std::uint64_t> numbers);

    // Shards that hold some of the rows and whose numbers were not put in; as `missing`.
    std::vector<std::size_t> missing_numbers(std::span<const std::int64_t> rows) const;

    // Writes the number of each row; std::invalid_argument when its shard's were not put in.
    void numbers(std::span<const std::int64_t> rows, std::uint64_t* out) const;

private:
    std::size_t shard_of(std::int64_t row, std::size_t guess) const noexcept;

    template <class Spans>
    std::vector<std::size_t> missing_in(const Spans& spans, std::span<const std::int64_t> rows) const;

    std::vector<std::int64_t> firsts_;
    std::unique_ptr<std::atomic<const std::uint64_t*>[]> numbers_;
    std::deque<ShardSpan> spans_;  // A deque: what is in it never moves.
    std::unique_ptr<std::atomic<const ShardSpan*>[]> shards_;
};

}  // namespace cellmill
