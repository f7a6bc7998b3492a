// The frame codec: one cell's genes and counts as bytes. The layout is docs/reference/format.md, "Frames".
// Knows neither shards nor panels nor Python. Every byte that is decoded is taken as hostile.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace cellmill {

// What is wrong with a frame; the numbers are those of src/cellmill/kernel/faults.py.
enum class Fault : int {
    none = 0,
    outside = 1,
    truncated = 2,
    nonzeros = 3,
    header = 4,
    trailing = 5,
    exception = 6,
    unary = 7,
    count_overflow = 8,
    gene_range = 9,
    head_state = 10,
    head_escape = 11,
    count_kind = 20,  // Not the frame's fault: the type that was asked for does not hold a count.
};

inline constexpr std::size_t kBlock = 128;
inline constexpr std::size_t kMaxUnaryBytes = 255;

class Model;

// How a frame begins. Without head genes all nonzeros are in blocks.
struct FrameFront {
    std::uint32_t nnz = 0;
    std::uint32_t in_blocks = 0;
    bool blocks_alone = false;  // No head section: blocks begin at gene 0 and end with the frame.
    std::size_t bytes = 0;  // Of the numbers themselves.
};

// Reads the numbers of nonzeros alone, and that the frame is long enough to hold the headers. `head` is the model of the
// store's head genes, null where it has none.
Fault read_front(std::span<const std::uint8_t> frame, std::uint32_t n_genes, const Model* head, FrameFront& front) noexcept;

// Which genes of a store are wanted: gene g is bit g mod 32 of word g / 32. There are gene_bit_words(n_genes) words: those
// behind the last gene are zero, and are there for vectors that reach beyond it.
using GeneBits = const std::uint32_t*;
inline constexpr std::size_t gene_bit_words(std::size_t n_genes) noexcept { return n_genes / 32 + 10; }

// The 4-byte type that counts are written as. int32 and float32 hold not every count: one that they do not hold exactly
// (above 2^31 - 1, above 2^24) is a fault.
enum class Kind : int { uint32 = 0, int32 = 1, float32 = 2 };

// With which vectors of the processor frames are read, if any.
enum class Vectors : int { plain = 0, avx2 = 1, avx512 = 2 };

// The widest that this process may use: those of the processor, or less where `limit_vectors` says so, for tests.
Vectors vectors_in_use() noexcept;
void limit_vectors(Vectors most) noexcept;

class VectorDecoder;

// Decodes frames; holds the scratch of one thread.
class Decoder {
public:
    // `head` outlives the decoder; null where the store has no head genes.
    explicit Decoder(const Model* head = nullptr);
    ~Decoder();
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;

    // Writes exactly `nnz` genes and counts, where `nnz` is what read_front gave for this frame; `total`, where not null,
    // gets the sum of the counts. On a fault what was written is undefined, but nothing beyond `nnz` entries is touched.
    Fault decode(std::span<const std::uint8_t> frame, std::uint32_t n_genes, std::uint32_t nnz, std::int32_t* genes,
                 std::uint32_t* counts, Kind kind = Kind::uint32, std::uint64_t* total = nullptr);

    // Writes the genes of `wanted` alone, ascending, and their counts; returns how many in `kept`. There must be room for
    // nnz + 16 of each. All of the frame is read and checked; `total` is the sum of all its counts, where asked for.
    Fault decode_some(std::span<const std::uint8_t> frame, std::uint32_t n_genes, std::uint32_t nnz, GeneBits wanted,
                      std::int32_t* genes, std::uint32_t* counts, std::uint32_t& kept, std::uint64_t* total);

private:
    struct Block {
        std::uint32_t size;
        std::uint32_t mode;
        std::uint32_t width;
        std::uint32_t exceptions;
        std::uint32_t high_bits;
        std::uint32_t unary_bytes;
        std::size_t payload_bytes() const noexcept;
    };

    // Copies the frame to bytes_ and reads how it begins; its nonzeros must be `nnz`.
    Fault take(std::span<const std::uint8_t> frame, std::uint32_t n_genes, std::uint32_t nnz, FrameFront& front);
    // The blocks of the frame in bytes_, up to `end`; where head genes follow them, `end` becomes where that is.
    Fault decode_blocks(const FrameFront& front, std::size_t& end, std::uint32_t n_genes, std::int32_t* genes,
                        std::uint32_t* counts);
    Fault decode_counts(std::span<const std::uint8_t> frame, std::uint32_t n_genes, std::uint32_t nnz, std::int32_t* genes,
                        std::uint32_t* counts);
    Fault decode_plain(std::span<const std::uint8_t> copy, std::size_t headers, bool alone, std::size_t& end, std::uint32_t n_genes,
                       std::uint32_t nnz, std::int32_t* genes, std::uint32_t* counts) noexcept;
    static std::size_t read_header(const std::uint8_t* at, std::size_t left, std::uint32_t size, Block& block,
                                   Fault& fault) noexcept;
    Fault unpack(const Block& block, const std::uint8_t* payload, Fault overflow) noexcept;
    Fault patch(const Block& block, const std::uint8_t* entries, Fault overflow) noexcept;
    Fault read_unary(const Block& block, const std::uint8_t* section) noexcept;
    Fault read_gaps(const Block& block, const std::uint8_t* payload, std::uint32_t n_genes, std::uint64_t& next_gene,
                    std::int32_t* genes) noexcept;
    Fault read_counts(const Block& block, const std::uint8_t* payload, std::uint32_t* counts) noexcept;

    alignas(64) std::array<std::uint32_t, kBlock> low_{};  // The low bits of a block, or its values.
    // Places of the ones of a unary section, from kOnesBegin on; before them a place of -1, so that each has a predecessor.
    static constexpr std::size_t kOnesBegin = 8;
    alignas(64) std::array<std::uint16_t, kOnesBegin + kMaxUnaryBytes * 8 + 16> ones_{};
    std::vector<std::uint8_t> bytes_;
    std::unique_ptr<VectorDecoder> vectors_;
    const Model* head_;
};

// Rewrites counts in place as the kind asked for; false when it does not hold one of them.
bool to_kind(Kind kind, std::uint32_t* counts, std::uint32_t size) noexcept;

// Appends the frame of one cell. Genes ascend, each once; counts are 1 or more: the caller has checked.
template <class Gene>
void encode_cell(std::span<const Gene> genes, std::span<const std::uint32_t> counts, std::vector<std::uint8_t>& out);

extern template void encode_cell(std::span<const std::int32_t>, std::span<const std::uint32_t>,
                                 std::vector<std::uint8_t>&);
extern template void encode_cell(std::span<const std::int64_t>, std::span<const std::uint32_t>,
                                 std::vector<std::uint8_t>&);

}  // namespace cellmill
