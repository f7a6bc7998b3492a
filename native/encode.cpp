#include "encode.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "frames.hpp"
#include "model.hpp"
#include "packing.hpp"

namespace cellmill {
namespace {

using Choice = BlockChoice;

std::uint32_t bit_length(std::uint32_t x) noexcept { return static_cast<std::uint32_t>(std::bit_width(x)); }

// What the choice needs to know of a block of any values: counted once, value by value.
class WideBlock {
public:
    WideBlock(const std::uint32_t* values, std::uint32_t size, std::uint32_t largest) noexcept
        : values_(values), size_(size), largest_(largest) {
        for (std::uint32_t j = 0; j < size; ++j) ++longer_[bit_length(values[j])];
        for (int bits = 32; bits >= 0; --bits) longer_[bits] += longer_[bits + 1];
    }

    std::uint32_t largest() const noexcept { return largest_; }

    // How many values need more than `width` bits.
    std::uint32_t exceptions(std::uint32_t width) const noexcept { return longer_[width + 1]; }

    // The sum of the values without their low `width` bits.
    std::uint64_t high_sum(std::uint32_t width) const noexcept {
        std::uint64_t sum = 0;
        for (std::uint32_t j = 0; j < size_; ++j) sum += values_[j] >> width;
        return sum;
    }

private:
    const std::uint32_t* values_;
    std::uint32_t size_;
    std::uint32_t largest_;
    std::uint32_t longer_[34] = {};  // How many values have at least this many bits.
};

// The same for values below 2^15, which nearly all blocks hold: eight values at a time. Padding zeros count for nothing.
class NarrowBlock {
public:
    explicit NarrowBlock(const std::uint32_t* values) noexcept {
        alignas(16) std::int16_t narrow[kBlock];
        for (std::size_t j = 0; j < kBlock; ++j) narrow[j] = static_cast<std::int16_t>(values[j]);
        std::memcpy(rows_, narrow, sizeof rows_);
        Halves most = rows_[0];
        for (const Halves row : rows_) most = row > most ? row : most;
        for (int lane = 0; lane < kLanes; ++lane) largest_ = std::max(largest_, static_cast<std::uint32_t>(most[lane]));
    }

    std::uint32_t largest() const noexcept { return largest_; }

    std::uint32_t exceptions(std::uint32_t width) const noexcept {
        const std::int16_t limit = static_cast<std::int16_t>((1 << width) - 1);
        Halves found{};
        for (const Halves row : rows_) found -= row > limit;  // A comparison gives -1 where it holds.
        return total(found);
    }

    // Only for a width at which no value is above kMostHigh, so that 16 of them fit a lane.
    std::uint64_t high_sum(std::uint32_t width) const noexcept {
        Halves sums{};
        for (const Halves row : rows_) sums += row >> static_cast<std::int16_t>(width);
        return total(sums);
    }

private:
    static constexpr int kLanes = 8;
    typedef std::int16_t Halves __attribute__((vector_size(2 * kLanes)));

    static std::uint32_t total(Halves lanes) noexcept {
        std::uint32_t sum = 0;
        for (int lane = 0; lane < kLanes; ++lane) sum += static_cast<std::uint16_t>(lanes[lane]);
        return sum;
    }

    Halves rows_[kBlock / kLanes];
    std::uint32_t largest_ = 0;
};

// A value whose high part is above this cannot stand in a unary section.
constexpr std::uint32_t kMostHigh = kMaxUnaryBytes * 8;
static_assert(kMostHigh * (kBlock / 8) < 1 << 15);

// The first of the smallest of: plain, patched by ascending width, unary by ascending width.
template <class Block>
Choice choose(const Block& block, std::uint32_t size) noexcept {
    const std::uint32_t largest = block.largest();
    const std::uint32_t full = bit_length(largest);
    Choice best{kPlain, full, 0, 0, 0, kHeaderBytes[kPlain] + to_bytes(std::size_t{size} * full)};
    for (std::uint32_t width = 0; width < full; ++width) {
        const std::size_t low = kHeaderBytes[kPatched] + to_bytes(std::size_t{size} * width);
        if (low >= best.bytes) break;
        const std::uint32_t exceptions = block.exceptions(width);
        const std::uint32_t high_bits = bit_length((largest >> width) - 1);
        const std::size_t bytes = low + to_bytes(std::size_t{exceptions} * (kPositionBits + high_bits));
        if (bytes < best.bytes) best = {kPatched, width, exceptions, high_bits, 0, bytes};
    }
    std::size_t before = ~std::size_t{0};
    for (std::uint32_t width = 0; width <= std::min(full, kMaxUnaryWidth); ++width) {
        const std::size_t low = kHeaderBytes[kUnary] + to_bytes(std::size_t{size} * width);
        if (low + to_bytes(size) >= best.bytes) break;
        if (largest >> width > kMostHigh) continue;
        const std::size_t unary = to_bytes(size + block.high_sum(width));
        if (unary > kMaxUnaryBytes) continue;
        if (low + unary < best.bytes)
            best = {kUnary, width, 0, 0, static_cast<std::uint32_t>(unary), low + unary};
        // The bits of low parts and unary section are convex in the width, and the low parts of a whole block are
        // whole bytes: once they grow, they only grow.
        if (size == kBlock && low + unary > before) break;
        before = low + unary;
    }
    return best;
}

// `values` is padded with zeros to a whole block.
Choice choose_block(const std::uint32_t* values, std::uint32_t size) noexcept {
    std::uint32_t any = 0;
    for (std::size_t j = 0; j < kBlock; ++j) any |= values[j];
    if (any < 1U << 15) return choose(NarrowBlock(values), size);
    return choose(WideBlock(values, size, *std::max_element(values, values + size)), size);
}

std::uint8_t* write_varint(std::size_t number, std::uint8_t* to) noexcept {
    for (; number >= 128; number >>= 7) *to++ = static_cast<std::uint8_t>((number & 127) | 128);
    *to++ = static_cast<std::uint8_t>(number);
    return to;
}

std::uint8_t* write_header(const Choice& choice, std::uint8_t* to) noexcept {
    *to++ = static_cast<std::uint8_t>(choice.width | choice.mode << 6);
    if (choice.mode == kPatched) {
        *to++ = static_cast<std::uint8_t>(choice.exceptions);
        *to++ = static_cast<std::uint8_t>(choice.high_bits);
    } else if (choice.mode == kUnary) {
        *to++ = static_cast<std::uint8_t>(choice.unary_bytes);
    }
    return to;
}

// Appends bit fields, least significant bit first, a word at a time: up to 7 bytes after the end are overwritten.
class WordWriter {
public:
    explicit WordWriter(std::uint8_t* to) noexcept : to_(to) {}

    static constexpr std::uint32_t kMostBits = 56;

    // `value` has no bits above the first `bits`, which are at most kMostBits.
    void put(std::uint64_t value, std::uint32_t bits) noexcept {
        held_ |= value << n_held_;
        std::memcpy(to_, &held_, sizeof held_);
        n_held_ += bits;
        to_ += n_held_ >> 3;
        held_ >>= n_held_ & ~7U;
        n_held_ &= 7;
    }

    std::uint8_t* finish() noexcept { return to_ + (n_held_ > 0); }

private:
    std::uint8_t* to_;
    std::uint64_t held_ = 0;
    std::uint32_t n_held_ = 0;
};

template <int Width, int Step>
inline void pack_step(const std::uint32_t* from, Lanes& row, std::uint8_t* to) noexcept {
    constexpr int shift = Step * Width % 32;
    constexpr int at = Step * Width / 32 * 16;
    Lanes lanes = load_lanes(from + 4 * Step);
    if constexpr (Width < 32) lanes &= (std::uint32_t{1} << Width) - 1;
    if constexpr (shift == 0)
        row = lanes;
    else
        row |= lanes << shift;
    if constexpr (shift + Width >= 32) {
        store_lanes(to + at, row);
        if constexpr (shift + Width > 32) row = lanes >> (32 - shift);
    }
}

// Writes 16 * Width bytes of the low `Width` bits of 128 values.
template <int Width>
void pack_whole(const std::uint32_t* from, std::uint8_t* to) noexcept {
    if constexpr (Width == 0) {
        (void)from, (void)to;
    } else {
        Lanes row{};
        [&]<std::size_t... Step>(std::index_sequence<Step...>) {
            (pack_step<Width, static_cast<int>(Step)>(from, row, to), ...);
        }(std::make_index_sequence<32>{});
    }
}

using PackWhole = void (*)(const std::uint32_t*, std::uint8_t*) noexcept;

constexpr auto kPackWhole = []<std::size_t... Width>(std::index_sequence<Width...>) {
    return std::array<PackWhole, sizeof...(Width)>{&pack_whole<static_cast<int>(Width)>...};
}(std::make_index_sequence<33>{});

std::uint8_t* write_low(const std::uint32_t* values, std::uint32_t size, std::uint32_t width, std::uint8_t* to) noexcept {
    if (size == kBlock) {
        kPackWhole[width](values, to);
        return to + 16 * std::size_t{width};
    }
    const std::uint64_t mask = (std::uint64_t{1} << width) - 1;
    WordWriter bits(to);
    for (std::uint32_t j = 0; j < size; ++j) bits.put(values[j] & mask, width);
    return bits.finish();
}

std::uint8_t* write_exceptions(const Choice& choice, const std::uint32_t* values, std::uint32_t size,
                               std::uint8_t* to) noexcept {
    std::uint8_t at[kBlock];
    std::uint32_t found = 0;
    for (std::uint32_t j = 0; j < size; ++j) {
        at[found] = static_cast<std::uint8_t>(j);
        found += values[j] >> choice.width != 0;
    }
    WordWriter bits(to);
    for (std::uint32_t i = 0; i < found; ++i) {
        const std::uint64_t high = values[at[i]] >> choice.width;
        bits.put(at[i] | (high - 1) << kPositionBits, kPositionBits + choice.high_bits);
    }
    return bits.finish();
}

// 1 << i: a load costs less than a shift by a register without BMI2.
constexpr auto kBit = [] {
    std::array<std::uint64_t, 64> bits{};
    for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = std::uint64_t{1} << i;
    return bits;
}();

void put_unary(WordWriter& bits, std::uint32_t high) noexcept {
    for (; high >= WordWriter::kMostBits; high -= WordWriter::kMostBits) bits.put(0, WordWriter::kMostBits);
    bits.put(kBit[high], high + 1);
}

std::uint8_t* write_unary(const std::uint32_t* values, std::uint32_t size, std::uint32_t width,
                          std::uint8_t* to) noexcept {
    constexpr std::uint32_t kTogether = 8;
    WordWriter bits(to);
    std::uint32_t j = 0;
    for (; j + kTogether <= size; j += kTogether) {
        std::uint32_t ends[kTogether];  // Places of the ones of these values, counted from the first bit of the group.
        std::uint32_t end = 0;
        for (std::uint32_t i = 0; i < kTogether; ++i, ++end) ends[i] = end += values[j + i] >> width;
        if (end <= WordWriter::kMostBits) {
            std::uint64_t ones = 0;
            for (const std::uint32_t place : ends) ones |= kBit[place];
            bits.put(ones, end);
        } else {
            for (std::uint32_t i = 0; i < kTogether; ++i) put_unary(bits, values[j + i] >> width);
        }
    }
    for (; j < size; ++j) put_unary(bits, values[j] >> width);
    return bits.finish();
}

std::uint8_t* write_payload(const Choice& choice, const std::uint32_t* values, std::uint32_t size,
                            std::uint8_t* to) noexcept {
    to = write_low(values, size, choice.width, to);
    if (choice.mode == kPatched) return write_exceptions(choice, values, size, to);
    return choice.mode == kUnary ? write_unary(values, size, choice.width, to) : to;
}

std::uint32_t block_size(std::size_t done, std::size_t nnz) noexcept {
    return static_cast<std::uint32_t>(std::min(kBlock, nnz - done));
}

}  // namespace

Encoder::Encoder(const Model* head)
    : head_(head), head_room_(head == nullptr ? 0 : 2 * std::size_t{head->n_genes()} + 8) {}

void Encoder::reserve(std::size_t nnz) {
    const std::size_t blocks = (nnz + kBlock - 1) / kBlock;
    if (choices_.size() >= 2 * blocks) return;
    choices_.resize(4 * blocks);
    values_.resize(4 * blocks * kBlock);
}

template <class Gene>
std::uint8_t* Encoder::write(const Gene* genes, const std::uint32_t* counts, std::size_t nnz, std::uint8_t* to) {
    if (nnz == 0 || head_ == nullptr) {
        to = write_varint(nnz, to);
        return nnz == 0 ? to : write_blocks(genes, counts, nnz, 0, to);
    }
    std::uint8_t* const begin = to;
    const std::uint32_t n_head = head_->n_genes();
    const std::size_t in_head = static_cast<std::size_t>(
        std::lower_bound(genes, genes + nnz, n_head, [](Gene gene, std::uint32_t end) { return static_cast<std::uint64_t>(gene) < end; }) - genes);
    to = write_varint(2 * nnz + (in_head < nnz), to);
    if (in_head < nnz) {
        to = write_varint(nnz - in_head, to);
        to = write_blocks(genes + in_head, counts + in_head, nnz - in_head, n_head, to);
    }
    section_.clear();
    encode_head(*head_, std::span(genes, in_head), std::span(counts, in_head), section_);
    to = std::copy(section_.begin(), section_.end(), to);
    if (section_.size() < in_head) return to;
    // A cell that is not like those the model was made from: blocks alone, where they are shorter.
    if (blocks_.size() < room(nnz)) blocks_.resize(2 * room(nnz));
    std::uint8_t* other = write_varint(2 * nnz + 1, blocks_.data());
    *other++ = 0;
    other = write_blocks(genes, counts, nnz, 0, other);
    return other - blocks_.data() < to - begin ? std::copy(blocks_.data(), other, begin) : to;
}

template <class Gene>
std::uint8_t* Encoder::write_blocks(const Gene* genes, const std::uint32_t* counts, std::size_t nnz, std::uint32_t first,
                                    std::uint8_t* to) {
    reserve(nnz);
    const std::size_t padded = (nnz + kBlock - 1) / kBlock * kBlock;
    std::uint32_t* const gaps = values_.data();
    std::uint32_t* const less_one = gaps + padded;
    gaps[0] = static_cast<std::uint32_t>(genes[0]) - first;
    for (std::size_t j = 1; j < nnz; ++j) gaps[j] = static_cast<std::uint32_t>(genes[j] - genes[j - 1] - 1);
    for (std::size_t j = 0; j < nnz; ++j) less_one[j] = counts[j] - 1;
    std::fill(gaps + nnz, gaps + padded, 0);
    std::fill(less_one + nnz, less_one + padded, 0);
    // Headers stand before all payloads, so blocks are chosen first and written after.
    BlockChoice* choice = choices_.data();
    for (std::size_t done = 0; done < nnz; done += kBlock) {
        for (const std::uint32_t* stream : {gaps, less_one}) {
            *choice = choose_block(stream + done, block_size(done, nnz));
            to = write_header(*choice++, to);
        }
    }
    choice = choices_.data();
    for (std::size_t done = 0; done < nnz; done += kBlock)
        for (const std::uint32_t* stream : {gaps, less_one})
            to = write_payload(*choice++, stream + done, block_size(done, nnz), to);
    return to;
}

template std::uint8_t* Encoder::write(const std::int32_t*, const std::uint32_t*, std::size_t, std::uint8_t*);
template std::uint8_t* Encoder::write(const std::int64_t*, const std::uint32_t*, std::size_t, std::uint8_t*);

template <class Gene>
void encode_cell(Encoder& encoder, std::span<const Gene> genes, std::span<const std::uint32_t> counts,
                 std::vector<std::uint8_t>& out) {
    const std::size_t begin = out.size();
    out.resize(begin + encoder.room(genes.size()));
    const std::uint8_t* end = encoder.write(genes.data(), counts.data(), genes.size(), out.data() + begin);
    out.resize(static_cast<std::size_t>(end - out.data()));
}

template <class Gene>
void encode_cell(std::span<const Gene> genes, std::span<const std::uint32_t> counts, std::vector<std::uint8_t>& out) {
    Encoder encoder;
    encode_cell(encoder, genes, counts, out);
}

template void encode_cell(Encoder&, std::span<const std::int32_t>, std::span<const std::uint32_t>,
                          std::vector<std::uint8_t>&);
template void encode_cell(Encoder&, std::span<const std::int64_t>, std::span<const std::uint32_t>,
                          std::vector<std::uint8_t>&);
template void encode_cell(std::span<const std::int32_t>, std::span<const std::uint32_t>, std::vector<std::uint8_t>&);
template void encode_cell(std::span<const std::int64_t>, std::span<const std::uint32_t>, std::vector<std::uint8_t>&);

}  // namespace cellmill
