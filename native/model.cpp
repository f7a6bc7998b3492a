#include "model.hpp"

#include <bit>
#include <cstring>
#include <utility>

namespace cellmill {
namespace {

constexpr std::uint32_t kFirstState = 1;
constexpr std::uint32_t kLowest = 1U << 16;  // Below it a state takes up a word, while there are words.
constexpr std::uint32_t kSymbols = 124;
constexpr std::uint32_t kExact = 8;  // Counts below it are their own symbols.
constexpr std::uint32_t kEscapeBits = 32;
constexpr std::uint32_t kMostGenes = 65'535;
constexpr std::size_t kHeaderBytes = 16;
constexpr std::size_t kHashBytes = 8;
// "CELLHEAD", version 1 in two bytes, two zeros.
constexpr std::uint8_t kBegin[12] = {'C', 'E', 'L', 'L', 'H', 'E', 'A', 'D', 1, 0, 0, 0};

constexpr std::uint32_t low_mask(std::uint32_t bits) noexcept {
    return static_cast<std::uint32_t>((std::uint64_t{1} << bits) - 1);
}

std::uint32_t symbol_of(std::uint32_t count) noexcept {
    if (count < kExact) return count;
    const std::uint32_t exponent = static_cast<std::uint32_t>(std::bit_width(count)) - 1;
    return kExact + 4 * (exponent - 3) + (count >> (exponent - 2) & 3);
}

// How many bits of a count its symbol does not say.
constexpr std::uint32_t raw_bits(std::uint32_t symbol) noexcept {
    return symbol < kExact ? 0 : (symbol - kExact) / 4 + 1;
}

// Writes what the decoder reads, last first.
class Writer {
public:
    explicit Writer(std::vector<std::uint16_t>& words) noexcept : words_(words) {}

    void put_symbol(std::uint32_t begin, std::uint32_t end) {
        const std::uint32_t frequency = end - begin;
        if (state_ >= frequency << 18) emit();
        state_ = (state_ / frequency << kProbabilityBits) + state_ % frequency + begin;
    }

    void put_raw(std::uint32_t value, std::uint32_t bits) {
        const std::uint32_t low = bits < 16 ? bits : 16;
        put_bits(value, low);
        put_bits(bits > 16 ? value >> 16 : 0, bits - low);
    }

    std::uint32_t state() const noexcept { return state_; }

private:
    void put_bits(std::uint32_t value, std::uint32_t bits) {
        if (bits == 0) return;
        if (state_ >> (32 - bits) != 0) emit();
        state_ = state_ << bits | (value & low_mask(bits));
    }

    void emit() {
        words_.push_back(static_cast<std::uint16_t>(state_));
        state_ >>= 16;
    }

    std::vector<std::uint16_t>& words_;
    std::uint32_t state_ = kFirstState;
};

void put_count(const Model& model, std::uint32_t gene, std::uint32_t count, Writer& to) {
    const std::uint16_t* ends = model.ends(gene);
    const std::uint32_t literals = model.literals(gene);
    std::uint32_t symbol = symbol_of(count);
    if (symbol >= literals) {
        symbol = literals;
        to.put_raw(count, kEscapeBits);
    } else {
        to.put_raw(count, raw_bits(symbol));
    }
    to.put_symbol(symbol == 0 ? 0 : ends[symbol - 1], ends[symbol]);
}

// A state and the words it takes up. After the last word the state only shrinks, so any bytes end somewhere.
struct Reader {
    std::uint32_t state;
    const std::uint8_t* at;
    const std::uint8_t* end;  // A whole number of words from `at`.

    void refill() noexcept {
        if (state < kLowest && at != end) {
            std::uint16_t word;
            std::memcpy(&word, at, sizeof word);
            state = state << 16 | word;
            at += sizeof word;
        }
    }

    std::uint32_t take_bits(std::uint32_t bits) noexcept {
        const std::uint32_t value = state & low_mask(bits);
        state >>= bits;
        refill();
        return value;
    }

    std::uint32_t take_raw(std::uint32_t bits) noexcept {
        if (bits <= 16) return take_bits(bits);
        const std::uint32_t high = take_bits(bits - 16);
        return high << 16 | take_bits(16);
    }

    // A count that is not 0, or the escape of 0. `slot` is past the slots of 0, which end at ends[0].
    std::uint32_t take_count(const std::uint16_t* ends, std::uint32_t slot) noexcept {
        std::uint32_t symbol = 1;
        while (slot >= ends[symbol]) ++symbol;  // Ends at the escape, whose end no slot reaches.
        const std::uint32_t begin = ends[symbol - 1];
        const std::uint32_t end_slot = ends[symbol];
        state = (end_slot - begin) * (state >> kProbabilityBits) + (slot - begin);
        refill();
        if (end_slot == kTotal) return take_raw(kEscapeBits);
        if (symbol < kExact) return symbol;
        const std::uint32_t bits = raw_bits(symbol);
        const std::uint32_t leading = 4 + ((symbol - kExact) & 3);
        return leading << bits | take_raw(bits);
    }
};

// The first state: one or two bytes are all of it, an odd length begins with three of it, any other with four.
Fault open_section(std::span<const std::uint8_t> section, Reader& reader) noexcept {
    const std::size_t size = section.size();
    if (size == 0) return Fault::truncated;
    const std::size_t state_bytes = size < 3 ? size : 4 - size % 2;
    if (section[state_bytes - 1] == 0) return Fault::head_state;
    reader.state = 0;
    for (std::size_t i = state_bytes; i-- > 0;) reader.state = reader.state << 8 | section[i];
    reader.at = section.data() + state_bytes;
    reader.end = section.data() + size;
    return Fault::none;
}

}  // namespace

ModelFault Model::parse(std::span<const std::uint8_t> bytes, Model& model) {
    model = Model();
    if (bytes.size() < kHeaderBytes + kHashBytes) return ModelFault::truncated;
    if (std::memcmp(bytes.data(), kBegin, sizeof kBegin) != 0) return ModelFault::magic;
    std::uint32_t n_genes;
    std::memcpy(&n_genes, bytes.data() + sizeof kBegin, sizeof n_genes);
    if (n_genes == 0 || n_genes > kMostGenes) return ModelFault::genes;
    const std::size_t end = bytes.size() - kHashBytes;
    std::size_t at = kHeaderBytes;
    Model made;
    made.rows_.push_back(0);
    for (std::uint32_t gene = 0; gene < n_genes; ++gene) {
        if (at >= end) return ModelFault::truncated;
        const std::uint32_t literals = bytes[at++];
        if (literals < 1 || literals > kSymbols) return ModelFault::literals;
        // Of the symbols after 0, the frequencies; 0 has what they leave.
        std::uint32_t sums[kSymbols + 1] = {};
        for (std::uint32_t symbol = 1; symbol <= literals; ++symbol) {
            const bool wide = at < end && bytes[at] >= 128;
            if (at + wide >= end) return ModelFault::truncated;
            const std::uint32_t frequency = wide ? (bytes[at] & 127U) | std::uint32_t{bytes[at + 1]} << 7 : bytes[at];
            if (frequency == 0 || frequency >= kTotal) return ModelFault::frequency;
            sums[symbol] = sums[symbol - 1] + frequency;
            at += 1 + wide;
        }
        if (sums[literals] >= kTotal) return ModelFault::frequency;
        const std::uint32_t zero = kTotal - sums[literals];
        made.zero_.push_back(static_cast<std::uint16_t>(zero));
        for (std::uint32_t symbol = 0; symbol <= literals; ++symbol)
            made.ends_.push_back(static_cast<std::uint16_t>(zero + sums[symbol]));
        made.rows_.push_back(static_cast<std::uint32_t>(made.ends_.size()));
    }
    if (at != end) return ModelFault::trailing;
    model = std::move(made);
    return ModelFault::none;
}

template <class Gene>
void encode_head(const Model& model, std::span<const Gene> genes, std::span<const std::uint32_t> counts,
                 std::vector<std::uint8_t>& out) {
    thread_local std::vector<std::uint16_t> words;
    words.clear();
    Writer writer(words);
    std::size_t next = genes.size();
    for (std::uint32_t gene = model.n_genes(); gene-- > 0;) {
        if (next > 0 && static_cast<std::uint32_t>(genes[next - 1]) == gene)
            put_count(model, gene, counts[--next], writer);
        else
            writer.put_symbol(0, model.zero_slots(gene));
    }
    for (std::uint32_t rest = writer.state(); rest != 0; rest >>= 8) out.push_back(static_cast<std::uint8_t>(rest));
    for (std::size_t i = words.size(); i-- > 0;) {
        out.push_back(static_cast<std::uint8_t>(words[i]));
        out.push_back(static_cast<std::uint8_t>(words[i] >> 8));
    }
}

template void encode_head(const Model&, std::span<const std::int32_t>, std::span<const std::uint32_t>,
                          std::vector<std::uint8_t>&);
template void encode_head(const Model&, std::span<const std::int64_t>, std::span<const std::uint32_t>,
                          std::vector<std::uint8_t>&);

HeadDecoded decode_head(const Model& model, std::span<const std::uint8_t> section, std::int32_t* genes,
                        std::uint32_t* counts, std::uint32_t capacity) noexcept {
    Reader reader{};
    const Fault begin = open_section(section, reader);
    if (begin != Fault::none) return {0, begin};
    const std::uint32_t n_genes = model.n_genes();
    std::uint32_t nnz = 0;
    for (std::uint32_t gene = 0; gene < n_genes; ++gene) {
        const std::uint32_t slot = reader.state & (kTotal - 1);
        const std::uint32_t zero = model.zero_slots(gene);
        if (slot < zero) {
            reader.state = zero * (reader.state >> kProbabilityBits) + slot;
            reader.refill();
            continue;
        }
        const std::uint32_t count = reader.take_count(model.ends(gene), slot);
        if (count == 0) return {nnz, Fault::head_escape};
        if (nnz == capacity) return {nnz, Fault::nonzeros};
        genes[nnz] = static_cast<std::int32_t>(gene);
        counts[nnz] = count;
        ++nnz;
    }
    if (reader.at != reader.end) return {nnz, Fault::trailing};
    if (reader.state != kFirstState) return {nnz, Fault::head_state};
    return {nnz, Fault::none};
}

}  // namespace cellmill
