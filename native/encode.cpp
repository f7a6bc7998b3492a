#include <algorithm>

#include "codec.hpp"
#include "frames.hpp"
#include "packing.hpp"

namespace cellmill {
namespace {

struct Choice {
    std::uint32_t mode = kPlain;
    std::uint32_t width = 0;
    std::uint32_t exceptions = 0;
    std::uint32_t high_bits = 0;
    std::uint32_t unary_bytes = 0;
    std::size_t bytes = 0;
};

std::uint32_t bit_length(std::uint32_t x) noexcept { return static_cast<std::uint32_t>(std::bit_width(x)); }

// The first of the smallest of: plain, patched by ascending width, unary by ascending width.
Choice choose(const std::uint32_t* values, std::uint32_t size) noexcept {
    std::uint32_t longer[34] = {};  // How many values have at least this many bits.
    std::uint32_t largest = 0;
    for (std::uint32_t j = 0; j < size; ++j) {
        ++longer[bit_length(values[j])];
        largest = std::max(largest, values[j]);
    }
    for (int bits = 32; bits >= 0; --bits) longer[bits] += longer[bits + 1];
    const std::uint32_t full = bit_length(largest);
    Choice best{kPlain, full, 0, 0, 0, kHeaderBytes[kPlain] + to_bytes(std::size_t{size} * full)};
    for (std::uint32_t width = 0; width < full; ++width) {
        const std::size_t low = kHeaderBytes[kPatched] + to_bytes(std::size_t{size} * width);
        if (low >= best.bytes) break;
        const std::uint32_t exceptions = longer[width + 1];
        const std::uint32_t high_bits = bit_length((largest >> width) - 1);
        const std::size_t bytes = low + to_bytes(std::size_t{exceptions} * (kPositionBits + high_bits));
        if (bytes < best.bytes) best = {kPatched, width, exceptions, high_bits, 0, bytes};
    }
    for (std::uint32_t width = 0; width <= std::min(full, kMaxUnaryWidth); ++width) {
        const std::size_t low = kHeaderBytes[kUnary] + to_bytes(std::size_t{size} * width);
        if (low + to_bytes(size) >= best.bytes) break;
        std::uint64_t ones = size;
        for (std::uint32_t j = 0; j < size; ++j) ones += values[j] >> width;
        const std::size_t unary = to_bytes(ones);
        if (unary <= kMaxUnaryBytes && low + unary < best.bytes)
            best = {kUnary, width, 0, 0, static_cast<std::uint32_t>(unary), low + unary};
    }
    return best;
}

void write_header(const Choice& choice, std::vector<std::uint8_t>& out) {
    out.push_back(static_cast<std::uint8_t>(choice.width | choice.mode << 6));
    if (choice.mode == kPatched) {
        out.push_back(static_cast<std::uint8_t>(choice.exceptions));
        out.push_back(static_cast<std::uint8_t>(choice.high_bits));
    } else if (choice.mode == kUnary) {
        out.push_back(static_cast<std::uint8_t>(choice.unary_bytes));
    }
}

void write_exceptions(const Choice& choice, const std::uint32_t* values, std::uint32_t size, std::uint8_t* to) noexcept {
    BitWriter bits(to);
    for (std::uint32_t j = 0; j < size; ++j) {
        const std::uint64_t high = values[j] >> choice.width;
        if (high > 0) bits.put(j | (high - 1) << kPositionBits, kPositionBits + choice.high_bits);
    }
    bits.finish();
}

void write_payload(const Choice& choice, const std::uint32_t* values, std::uint32_t size,
                   std::vector<std::uint8_t>& out) {
    const std::size_t begin = out.size();
    out.resize(begin + choice.bytes - kHeaderBytes[choice.mode]);
    std::uint8_t* to = out.data() + begin;
    if (size == kBlock) {
        pack_block(values, choice.width, to);
        to += 16 * std::size_t{choice.width};
    } else {
        BitWriter bits(to);
        for (std::uint32_t j = 0; j < size; ++j) bits.put(values[j], choice.width);
        to = bits.finish();
    }
    if (choice.mode == kPatched) {
        write_exceptions(choice, values, size, to);
    } else if (choice.mode == kUnary) {
        std::size_t place = 0;
        for (std::uint32_t j = 0; j < size; ++j, ++place) {
            place += values[j] >> choice.width;
            to[place >> 3] |= static_cast<std::uint8_t>(1U << (place & 7));
        }
    }
}

}  // namespace

template <class Gene>
void encode_cell(std::span<const Gene> genes, std::span<const std::uint32_t> counts, std::vector<std::uint8_t>& out) {
    const std::size_t nnz = genes.size();
    for (std::size_t rest = nnz;; rest >>= 7) {
        out.push_back(static_cast<std::uint8_t>(rest < 128 ? rest : (rest & 127) | 128));
        if (rest < 128) break;
    }
    // Headers stand before all payloads, so blocks are chosen first and written after.
    thread_local std::vector<std::uint32_t> values;
    thread_local std::vector<Choice> choices;
    values.resize(2 * nnz);
    choices.clear();
    Gene next = 0;
    for (std::size_t j = 0; j < nnz; ++j) {
        values[j] = static_cast<std::uint32_t>(genes[j] - next);
        values[nnz + j] = counts[j] - 1;
        next = genes[j] + 1;
    }
    for (std::size_t done = 0; done < nnz; done += kBlock) {
        const std::uint32_t size = static_cast<std::uint32_t>(std::min(kBlock, nnz - done));
        for (const std::size_t stream : {std::size_t{0}, nnz}) {
            choices.push_back(choose(values.data() + stream + done, size));
            write_header(choices.back(), out);
        }
    }
    for (std::size_t done = 0, block = 0; done < nnz; done += kBlock) {
        const std::uint32_t size = static_cast<std::uint32_t>(std::min(kBlock, nnz - done));
        for (const std::size_t stream : {std::size_t{0}, nnz})
            write_payload(choices[block++], values.data() + stream + done, size, out);
    }
}

template void encode_cell(std::span<const std::int32_t>, std::span<const std::uint32_t>, std::vector<std::uint8_t>&);
template void encode_cell(std::span<const std::int64_t>, std::span<const std::uint32_t>, std::vector<std::uint8_t>&);

}  // namespace cellmill
