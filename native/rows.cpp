#include "rows.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace cellmill {

RowTable::RowTable(std::span<const std::int64_t> firsts) : firsts_(firsts.begin(), firsts.end()) {
    if (firsts_.empty() || firsts_.front() != 0 || !std::is_sorted(firsts_.begin(), firsts_.end()))
        throw std::invalid_argument("firsts must start at 0 and never fall");
    shards_ = std::make_unique<std::atomic<const ShardSpan*>[]>(n_shards());
    numbers_ = std::make_unique<std::atomic<const std::uint64_t*>[]>(n_shards());
}

void RowTable::put(std::size_t shard, const ShardSpan& span) {
    if (shard >= n_shards()) throw std::invalid_argument("there is no shard " + std::to_string(shard));
    const std::size_t entries = static_cast<std::size_t>(firsts_[shard + 1] - firsts_[shard]) + 1;
    const bool fits = span.steps.empty() ? span.starts.size() == entries
                                         : span.steps.size() == entries && span.starts.size() == (entries + 15) / 16;
    if (!fits) throw std::invalid_argument("the offsets of shard " + std::to_string(shard) + " do not fit its cells");
    spans_.push_back(span);
    shards_[shard].store(&spans_.back(), std::memory_order_release);
}

// Rows of a batch are anywhere, but often in the shard of the row before.
std::size_t RowTable::shard_of(std::int64_t row, std::size_t guess) const noexcept {
    if (row >= firsts_[guess] && row < firsts_[guess + 1]) return guess;
    return static_cast<std::size_t>(std::upper_bound(firsts_.begin(), firsts_.end(), row) - firsts_.begin()) - 1;
}

template <class Spans>
std::vector<std::size_t> RowTable::missing_in(const Spans& spans, std::span<const std::int64_t> rows) const {
    std::vector<std::size_t> found;
    std::size_t shard = 0;
    for (const std::int64_t row : rows) {
        if (row < 0 || row >= n_rows()) throw std::out_of_range("row " + std::to_string(row) + " is not in the table");
        shard = shard_of(row, shard);
        if (spans[shard].load(std::memory_order_acquire) == nullptr && (found.empty() || found.back() != shard))
            found.push_back(shard);
    }
    std::sort(found.begin(), found.end());
    found.erase(std::unique(found.begin(), found.end()), found.end());
    return found;
}

std::vector<std::size_t> RowTable::missing(std::span<const std::int64_t> rows) const { return missing_in(shards_, rows); }

void RowTable::put_numbers(std::size_t shard, std::span<const std::uint64_t> numbers) {
    if (shard >= n_shards()) throw std::invalid_argument("there is no shard " + std::to_string(shard));
    if (numbers.size() != static_cast<std::size_t>(firsts_[shard + 1] - firsts_[shard]))
        throw std::invalid_argument("the numbers of shard " + std::to_string(shard) + " do not fit its cells");
    numbers_[shard].store(numbers.data(), std::memory_order_release);
}

std::vector<std::size_t> RowTable::missing_numbers(std::span<const std::int64_t> rows) const {
    return missing_in(numbers_, rows);
}

void RowTable::numbers(std::span<const std::int64_t> rows, std::uint64_t* out) const {
    std::size_t shard = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::int64_t row = rows[i];
        if (row < 0 || row >= n_rows()) throw std::out_of_range("row " + std::to_string(row) + " is not in the table");
        shard = shard_of(row, shard);
        const std::uint64_t* const held = numbers_[shard].load(std::memory_order_acquire);
        if (held == nullptr) throw std::invalid_argument("the numbers of shard " + std::to_string(shard) + " were not put in");
        out[i] = held[row - firsts_[shard]];
    }
}

Frames RowTable::find(std::span<const std::int64_t> rows) const {
    // Offsets of random rows are seldom in a cache: all are asked for before the first is read.
    std::vector<std::pair<const ShardSpan*, std::uint64_t>> places;
    places.reserve(rows.size());
    std::size_t shard = 0;
    for (const std::int64_t row : rows) {
        if (row < 0 || row >= n_rows()) throw std::out_of_range("row " + std::to_string(row) + " is not in the table");
        shard = shard_of(row, shard);
        const ShardSpan* span = shards_[shard].load(std::memory_order_acquire);
        if (span == nullptr) throw std::invalid_argument("shard " + std::to_string(shard) + " was not put in");
        const std::uint64_t cell = static_cast<std::uint64_t>(row - firsts_[shard]);
        span->fetch_start(cell);
        places.emplace_back(span, cell);
    }
    Frames frames;
    frames.reserve(rows.size());
    for (const auto& [span, cell] : places) {
        const std::uint64_t start = span->start_of(cell);
        const std::uint64_t stop = span->start_of(cell + 1);
        if (start > stop || stop > span->frames.size())
            frames.emplace_back();
        else
            frames.emplace_back(span->frames.data() + start, static_cast<std::size_t>(stop - start));
    }
    return frames;
}

void RowTable::will_need(std::span<const std::int64_t> rows) const {
#if defined(__unix__) || defined(__APPLE__)
    const std::uintptr_t page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    std::vector<std::pair<std::uintptr_t, std::uintptr_t>> pages;
    pages.reserve(rows.size());
    for (const std::span<const std::uint8_t> frame : find(rows)) {
        if (frame.data() == nullptr || frame.empty()) continue;
        const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(frame.data());
        pages.emplace_back(begin / page * page, (begin + frame.size() + page - 1) / page * page);
    }
    std::sort(pages.begin(), pages.end());
    for (std::size_t i = 0; i < pages.size();) {
        auto [begin, end] = pages[i];
        for (++i; i < pages.size() && pages[i].first <= end; ++i) end = std::max(end, pages[i].second);
        madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);  // A wish: what it answers changes nothing.
    }
#else
    (void)rows;
#endif
}

}  // namespace cellmill
