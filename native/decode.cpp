#include "codec.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>

#include "frames.hpp"
#include "model.hpp"
#include "packing.hpp"
#include "vector_decoder.hpp"

namespace cellmill {
namespace {


// For each byte the places of its ones, and how many they are.
struct OnesOfByte {
    alignas(16) std::uint16_t place[256][8];
    std::uint8_t count[256];
};

constexpr OnesOfByte kOnes = [] {
    OnesOfByte table{};
    for (unsigned byte = 0; byte < 256; ++byte) {
        unsigned found = 0;
        for (unsigned bit = 0; bit < 8; ++bit)
            if (byte >> bit & 1) table.place[byte][found++] = static_cast<std::uint16_t>(bit);
        table.count[byte] = static_cast<std::uint8_t>(found);
    }
    return table;
}();

// Length of the varint, or 0 where it ends outside, is longer than five bytes or says more than `most`.
std::size_t read_varint(std::span<const std::uint8_t> bytes, std::uint32_t most, std::uint32_t& number, Fault& fault) noexcept {
    std::uint64_t value = 0;
    for (std::size_t at = 0; at < 5; ++at) {
        if (at == bytes.size()) {
            fault = Fault::truncated;
            return 0;
        }
        value |= static_cast<std::uint64_t>(bytes[at] & 127) << (7 * at);
        if (bytes[at] < 128) {
            if (value > most) break;
            number = static_cast<std::uint32_t>(value);
            return at + 1;
        }
    }
    fault = Fault::nonzeros;
    return 0;
}

// The three functions below turn gaps into genes: gene j is `base` plus the gaps 0 to j plus j.

// Returns how far the next gene lies beyond `base`.
std::uint64_t sum_gaps(const std::uint32_t* gaps, std::uint32_t size, std::uint32_t base, std::int32_t* genes) noexcept {
    Lanes sums = Lanes{} + base;
    Lanes number = {0, 1, 2, 3};
    std::uint32_t j = 0;
    for (; j + 4 <= size; j += 4, number += 4) {
        sums = last_lane(sums) + running_sums(load_lanes(gaps + j));
        store_lanes(genes + j, sums + number);
    }
    std::uint32_t gene = sums[3] + j;
    for (; j < size; ++j) {
        gene += gaps[j];
        genes[j] = static_cast<std::int32_t>(gene++);
    }
    return gene - base;
}

// Gaps whose high parts are the zeros between the ones of a unary section.
std::uint64_t sum_unary_gaps(const std::uint32_t* low, const std::uint16_t* ones, std::uint32_t width,
                             std::uint32_t size, std::uint32_t base, std::int32_t* genes) noexcept {
    Lanes sums{};
    Lanes number = {0, 1, 2, 3};
    std::uint32_t j = 0;
    for (; j + 4 <= size; j += 4, number += 4) {
        sums = last_lane(sums) + running_sums(load_lanes(low + j));
        store_lanes(genes + j, sums + number + ((widen(ones + j) - number) << width) + base);
    }
    std::uint32_t lows = sums[3];
    for (; j < size; ++j) {
        lows += low[j];
        genes[j] = static_cast<std::int32_t>(base + j + lows + ((ones[j] - j) << width));
    }
    return std::uint64_t{lows} + size + (std::uint64_t{ones[size - 1] - (size - 1)} << width);
}

// Gaps of any size, summed in 64 bits; returns the next gene.
std::uint64_t sum_wide_gaps(const std::uint32_t* gaps, std::uint32_t size, std::uint64_t next_gene,
                            std::int32_t* genes) noexcept {
    for (std::uint32_t j = 0; j < size; ++j) {
        next_gene += gaps[j];
        genes[j] = static_cast<std::int32_t>(next_gene++);
    }
    return next_gene;
}

}  // namespace

namespace {

std::atomic<Vectors> most_vectors{Vectors::avx512};

std::unique_ptr<VectorDecoder> make_vector_decoder() {
    switch (vectors_in_use()) {
        case Vectors::avx512: return make_avx512_decoder();
        case Vectors::avx2: return make_avx2_decoder();
        default: return nullptr;
    }
}

}  // namespace

Vectors vectors_in_use() noexcept {
    static const Vectors available = has_avx512() ? Vectors::avx512 : has_avx2() ? Vectors::avx2 : Vectors::plain;
    const Vectors most = most_vectors.load(std::memory_order_relaxed);
    if (most >= available) return available;
    return most == Vectors::avx2 && !has_avx2() ? Vectors::plain : most;
}

void limit_vectors(Vectors most) noexcept { most_vectors.store(most, std::memory_order_relaxed); }

bool to_kind(Kind kind, std::uint32_t* counts, std::uint32_t size) noexcept {
    if (kind == Kind::uint32) return true;
    std::uint32_t largest = 0;
    for (std::uint32_t j = 0; j < size; ++j) largest = std::max(largest, counts[j]);
    if (kind == Kind::int32) return largest <= 0x7FFFFFFFU;
    for (std::uint32_t j = 0; j < size; ++j) {
        const float value = static_cast<float>(static_cast<std::int32_t>(counts[j]));  // Signed: one instruction.
        std::memcpy(counts + j, &value, sizeof value);
    }
    return largest <= 1U << 24;
}

Fault read_front(std::span<const std::uint8_t> frame, std::uint32_t n_genes, const Model* head, FrameFront& front) noexcept {
    front = {};
    Fault fault = Fault::none;
    if (head == nullptr) {
        front.bytes = read_varint(frame, n_genes, front.nnz, fault);
        if (fault != Fault::none) return fault;
        front.in_blocks = front.nnz;
        front.blocks_alone = true;
    } else {
        std::uint32_t first = 0;  // Twice the nonzeros, and whether some of them are in blocks.
        front.bytes = read_varint(frame, 2 * n_genes + 1, first, fault);
        if (fault != Fault::none) return fault;
        front.nnz = first / 2;
        if (first % 2 != 0) {
            const std::uint32_t most = std::min(front.nnz, n_genes - head->n_genes());
            front.bytes += read_varint(frame.subspan(front.bytes), most, front.in_blocks, fault);
            if (fault != Fault::none) return fault;
            front.blocks_alone = front.in_blocks == 0;
            if (front.blocks_alone) front.in_blocks = front.nnz;
        }
        if (front.nnz - front.in_blocks > head->n_genes()) return Fault::nonzeros;
    }
    const std::size_t blocks = (front.in_blocks + kBlock - 1) / kBlock;
    return 2 * blocks > frame.size() - front.bytes ? Fault::truncated : Fault::none;
}

std::size_t Decoder::Block::payload_bytes() const noexcept {
    return to_bytes(std::size_t{size} * width) + to_bytes(std::size_t{exceptions} * (kPositionBits + high_bits)) +
           unary_bytes;
}

// Returns the bytes of the header, or 0 with `fault` set.
std::size_t Decoder::read_header(const std::uint8_t* at, std::size_t left, std::uint32_t size, Block& block,
                                 Fault& fault) noexcept {
    fault = Fault::truncated;
    if (left == 0) return 0;
    block = {size, std::uint32_t{at[0]} >> 6, std::uint32_t{at[0]} & 63, 0, 0, 0};
    fault = Fault::header;
    if (block.mode > kUnary || block.width > (block.mode == kUnary ? kMaxUnaryWidth : kMaxWidth)) return 0;
    const std::size_t bytes = kHeaderBytes[block.mode];
    if (bytes > left) {
        fault = Fault::truncated;
        return 0;
    }
    if (block.mode == kPatched) {
        block.exceptions = at[1];
        block.high_bits = at[2];
        if (block.exceptions < 1 || block.exceptions > size || block.width + block.high_bits > kMaxWidth) return 0;
    } else if (block.mode == kUnary) {
        block.unary_bytes = at[1];
        if (block.unary_bytes == 0) return 0;
    }
    fault = Fault::none;
    return bytes;
}

Decoder::Decoder(const Model* head) : vectors_(make_vector_decoder()), head_(head) {}
Decoder::~Decoder() = default;

Fault Decoder::take(std::span<const std::uint8_t> frame, std::uint32_t n_genes, std::uint32_t nnz, FrameFront& front) {
    // A private copy with room behind it: wide loads stay inside, and bytes that another process changes under a
    // mapping cannot change between their check and their use.
    if (bytes_.size() < frame.size() + kSlack) bytes_.resize(2 * frame.size() + kSlack);
    std::copy(frame.begin(), frame.end(), bytes_.begin());
    std::fill_n(bytes_.begin() + static_cast<std::ptrdiff_t>(frame.size()), kSlack, std::uint8_t{0});
    const Fault fault = read_front({bytes_.data(), frame.size()}, n_genes, head_, front);
    return fault == Fault::none && front.nnz != nnz ? Fault::truncated : fault;
}

Fault Decoder::decode_blocks(const FrameFront& front, std::size_t& end, std::uint32_t n_genes, std::int32_t* genes,
                             std::uint32_t* counts) {
    if (!vectors_)
        return decode_plain({bytes_.data(), end}, front.bytes, front.blocks_alone, end, n_genes, front.in_blocks, genes, counts);
    const BlocksAt blocks{bytes_.data(), end, front.bytes, front.blocks_alone, n_genes, front.in_blocks};
    return vectors_->decode(blocks, Kind::uint32, genes, counts, nullptr, end);
}

Fault Decoder::decode(std::span<const std::uint8_t> frame, std::uint32_t n_genes, std::uint32_t nnz,
                      std::int32_t* genes, std::uint32_t* counts, Kind kind, std::uint64_t* total) {
    if (vectors_ && head_ == nullptr) {
        FrameFront front;
        const Fault fault = take(frame, n_genes, nnz, front);
        if (fault != Fault::none) return fault;
        std::size_t end = 0;
        const BlocksAt blocks{bytes_.data(), frame.size(), front.bytes, true, n_genes, nnz};
        return vectors_->decode(blocks, kind, genes, counts, total, end);
    }
    const Fault fault = decode_counts(frame, n_genes, nnz, genes, counts);
    if (fault != Fault::none) return fault;
    if (total != nullptr) *total = std::accumulate(counts, counts + nnz, std::uint64_t{0});
    return to_kind(kind, counts, nnz) ? Fault::none : Fault::count_kind;
}

// Genes and counts, in whatever way the frame is written.
Fault Decoder::decode_counts(std::span<const std::uint8_t> frame, std::uint32_t n_genes, std::uint32_t nnz,
                      std::int32_t* genes, std::uint32_t* counts) {
    FrameFront front;
    Fault fault = take(frame, n_genes, nnz, front);
    if (fault != Fault::none) return fault;
    std::size_t end = frame.size();
    if (head_ == nullptr) return decode_blocks(front, end, n_genes, genes, counts);
    if (nnz == 0) return end > front.bytes ? Fault::trailing : Fault::none;
    if (front.blocks_alone) return decode_blocks(front, end, n_genes, genes, counts);
    const std::uint32_t n_head = head_->n_genes();
    const std::uint32_t in_head = nnz - front.in_blocks;
    fault = decode_blocks(front, end, n_genes - n_head, genes + in_head, counts + in_head);
    if (fault != Fault::none) return fault;
    for (std::uint32_t j = in_head; j < nnz; ++j) genes[j] += static_cast<std::int32_t>(n_head);
    const HeadDecoded found = decode_head(*head_, {bytes_.data() + end, frame.size() - end}, genes, counts, in_head);
    if (found.fault != Fault::none) return found.fault;
    return found.nnz == in_head ? Fault::none : Fault::nonzeros;
}

Fault Decoder::decode_some(std::span<const std::uint8_t> frame, std::uint32_t n_genes, std::uint32_t nnz, GeneBits wanted,
                           std::int32_t* genes, std::uint32_t* counts, std::uint32_t& kept, std::uint64_t* total) {
    kept = 0;
    if (vectors_ && head_ == nullptr) {
        FrameFront front;
        const Fault fault = take(frame, n_genes, nnz, front);
        if (fault != Fault::none) return fault;
        const BlocksAt blocks{bytes_.data(), frame.size(), front.bytes, true, n_genes, nnz};
        return vectors_->decode_some(blocks, wanted, genes, counts, kept, total);
    }
    const Fault fault = decode(frame, n_genes, nnz, genes, counts);
    if (fault != Fault::none) return fault;
    std::uint64_t sum = 0;
    std::uint32_t found = 0;
    for (std::uint32_t j = 0; j < nnz; ++j) {
        const std::uint32_t gene = static_cast<std::uint32_t>(genes[j]);
        sum += counts[j];
        genes[found] = genes[j];
        counts[found] = counts[j];
        found += wanted[gene / 32] >> (gene % 32) & 1;
    }
    kept = found;
    if (total != nullptr) *total = sum;
    return Fault::none;
}

Fault Decoder::decode_plain(std::span<const std::uint8_t> copy, std::size_t headers, bool alone, std::size_t& end,
                            std::uint32_t n_genes, std::uint32_t nnz, std::int32_t* genes, std::uint32_t* counts) noexcept {
    Fault fault = Fault::none;
    std::size_t header = headers;
    std::size_t payload_total = 0;
    Block block{};
    for (std::uint32_t done = 0; done < nnz; done += kBlock) {
        const std::uint32_t size = std::min<std::uint32_t>(kBlock, nnz - done);
        for (int stream = 0; stream < 2; ++stream) {
            const std::size_t bytes = read_header(copy.data() + header, copy.size() - header, size, block, fault);
            if (fault != Fault::none) return fault;
            header += bytes;
            payload_total += block.payload_bytes();
        }
    }
    if (header + payload_total > copy.size()) return Fault::truncated;
    end = header + payload_total;
    if (alone && end < copy.size()) return Fault::trailing;

    const std::uint8_t* payload = copy.data() + header;
    std::uint64_t next_gene = 0;
    header = headers;
    for (std::uint32_t done = 0; done < nnz; done += kBlock) {
        const std::uint32_t size = std::min<std::uint32_t>(kBlock, nnz - done);
        header += read_header(copy.data() + header, copy.size() - header, size, block, fault);
        fault = read_gaps(block, payload, n_genes, next_gene, genes + done);
        if (fault != Fault::none) return fault;
        payload += block.payload_bytes();
        header += read_header(copy.data() + header, copy.size() - header, size, block, fault);
        fault = read_counts(block, payload, counts + done);
        if (fault != Fault::none) return fault;
        payload += block.payload_bytes();
    }
    return Fault::none;
}

// Fills low_ with the packed low bits.
Fault Decoder::unpack(const Block& block, const std::uint8_t* payload, Fault overflow) noexcept {
    if (block.size == kBlock)
        kUnpackBlock[block.width](payload, low_.data());
    else
        unpack_short(payload, block.size, block.width, low_.data());
    if (block.mode == kPatched) return patch(block, payload + to_bytes(std::size_t{block.size} * block.width), overflow);
    return Fault::none;
}

Fault Decoder::patch(const Block& block, const std::uint8_t* entries, Fault overflow) noexcept {
    const std::uint32_t entry_bits = kPositionBits + block.high_bits;
    const std::uint64_t mask = (std::uint64_t{1} << entry_bits) - 1;
    std::uint32_t least = 0;
    bool overflows = false;
    for (std::uint32_t i = 0; i < block.exceptions; ++i) {
        const std::size_t bit = std::size_t{i} * entry_bits;
        const std::uint64_t entry = (load_u64(entries + (bit >> 3)) >> (bit & 7)) & mask;
        const std::uint32_t position = static_cast<std::uint32_t>(entry & (kBlock - 1));
        if (position < least || position >= block.size) return Fault::exception;
        least = position + 1;
        const std::uint64_t value = low_[position] + (((entry >> kPositionBits) + 1) << block.width);
        overflows |= value > kMaxCountLessOne;
        low_[position] = static_cast<std::uint32_t>(value);
    }
    return overflows ? overflow : Fault::none;
}

// Fills ones_ with the places of the ones; there must be one per value and none of the bytes may be idle at the end.
Fault Decoder::read_unary(const Block& block, const std::uint8_t* section) noexcept {
    std::uint16_t* const begin = ones_.data() + kOnesBegin;
    begin[-1] = 0xFFFF;
    std::uint16_t* to = begin;
    for (std::uint32_t i = 0; i < block.unary_bytes; ++i) {
        const std::uint8_t byte = section[i];
        const std::uint16_t base = static_cast<std::uint16_t>(8 * i);
        for (int k = 0; k < 8; ++k) to[k] = static_cast<std::uint16_t>(base + kOnes.place[byte][k]);
        to += kOnes.count[byte];
    }
    const bool sound = to - begin == static_cast<std::ptrdiff_t>(block.size) && section[block.unary_bytes - 1] != 0;
    return sound ? Fault::none : Fault::unary;
}

Fault Decoder::read_gaps(const Block& block, const std::uint8_t* payload, std::uint32_t n_genes,
                         std::uint64_t& next_gene, std::int32_t* genes) noexcept {
    const std::uint32_t size = block.size;
    const std::uint16_t* const ones = ones_.data() + kOnesBegin;
    const std::uint32_t base = static_cast<std::uint32_t>(next_gene);
    if (block.mode == kUnary) {
        const Fault fault = read_unary(block, payload + to_bytes(std::size_t{size} * block.width));
        if (fault != Fault::none) return fault;
        if (block.width == 0) {  // A bitmap of the genes.
            for (std::uint32_t j = 0; j < size; ++j) genes[j] = static_cast<std::int32_t>(base + ones[j]);
            next_gene += std::uint64_t{ones[size - 1]} + 1;
        } else {
            unpack(block, payload, Fault::gene_range);
            next_gene += sum_unary_gaps(low_.data(), ones, block.width, size, base, genes);
        }
    } else {
        const Fault fault = unpack(block, payload, Fault::gene_range);
        if (fault != Fault::none) return fault;
        next_gene = block.width + block.high_bits <= kNarrow ? next_gene + sum_gaps(low_.data(), size, base, genes)
                                                             : sum_wide_gaps(low_.data(), size, next_gene, genes);
    }
    return next_gene > n_genes ? Fault::gene_range : Fault::none;
}

Fault Decoder::read_counts(const Block& block, const std::uint8_t* payload, std::uint32_t* counts) noexcept {
    const std::uint32_t size = block.size;
    const std::uint32_t width = block.width;
    if (block.mode == kUnary) {
        const Fault fault = read_unary(block, payload + to_bytes(std::size_t{size} * width));
        if (fault != Fault::none) return fault;
        const std::uint16_t* const ones = ones_.data() + kOnesBegin;
        // The distance between two ones is the high part plus one.
        const std::uint16_t* const before = ones - 1;
        for (std::uint32_t j = 0; j < size; ++j) counts[j] = static_cast<std::uint16_t>(ones[j] - before[j]);
        if (width == 0) return Fault::none;
        unpack(block, payload, Fault::count_overflow);
        for (std::uint32_t j = 0; j < size; ++j) counts[j] = ((counts[j] - 1) << width) + low_[j] + 1;
        return Fault::none;
    }
    if (width == 0 && block.mode == kPlain) {
        std::fill_n(counts, size, 1U);
        return Fault::none;
    }
    const Fault fault = unpack(block, payload, Fault::count_overflow);
    if (fault != Fault::none) return fault;
    if (width == kMaxWidth && std::find(low_.begin(), low_.begin() + size, 0xFFFFFFFFU) != low_.begin() + size)
        return Fault::count_overflow;
    for (std::uint32_t j = 0; j < size; ++j) counts[j] = low_[j] + 1;
    return Fault::none;
}

}  // namespace cellmill
