// Writing of frames into memory that the caller has reserved. Knows neither threads nor Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "codec.hpp"

namespace cellmill {

// What was decided about one block of one stream.
struct BlockChoice {
    std::uint32_t mode = 0;
    std::uint32_t width = 0;
    std::uint32_t exceptions = 0;
    std::uint32_t high_bits = 0;
    std::uint32_t unary_bytes = 0;
    std::size_t bytes = 0;
};

// Writes frames; holds the scratch of one thread.
class Encoder {
public:
    // `head` outlives the encoder; null where the store has no head genes.
    explicit Encoder(const Model* head = nullptr);

    // The most bytes that `write` touches for a cell of `nnz` nonzeros: no block is chosen that is larger than a plain
    // one, and bit strings are written by whole words, over what comes after. A head gene costs 14 bits at most, and 32
    // more for an escape.
    std::size_t room(std::size_t nnz) const noexcept {
        return head_room_ + kMostVarint + 2 * (nnz / kBlock + 1) + 2 * sizeof(std::uint32_t) * nnz + sizeof(std::uint64_t);
    }

    // Writes the frame of one cell at `to` and returns its end. Genes ascend, each once; counts are 1 or more.
    template <class Gene>
    std::uint8_t* write(const Gene* genes, const std::uint32_t* counts, std::size_t nnz, std::uint8_t* to);

private:
    static constexpr std::size_t kMostVarint = 20;

    template <class Gene>
    std::uint8_t* write_blocks(const Gene* genes, const std::uint32_t* counts, std::size_t nnz, std::uint32_t first,
                               std::uint8_t* to);

    void reserve(std::size_t nnz);

    // Gaps, then counts less one, each padded with zeros to whole blocks.
    std::vector<std::uint32_t> values_;
    std::vector<BlockChoice> choices_;
    const Model* head_;
    std::size_t head_room_;
    std::vector<std::uint8_t> section_;
    std::vector<std::uint8_t> blocks_;
};

extern template std::uint8_t* Encoder::write(const std::int32_t*, const std::uint32_t*, std::size_t, std::uint8_t*);
extern template std::uint8_t* Encoder::write(const std::int64_t*, const std::uint32_t*, std::size_t, std::uint8_t*);

// Appends the frame of one cell.
template <class Gene>
void encode_cell(Encoder& encoder, std::span<const Gene> genes, std::span<const std::uint32_t> counts,
                 std::vector<std::uint8_t>& out);

extern template void encode_cell(Encoder&, std::span<const std::int32_t>, std::span<const std::uint32_t>,
                                 std::vector<std::uint8_t>&);
extern template void encode_cell(Encoder&, std::span<const std::int64_t>, std::span<const std::uint32_t>,
                                 std::vector<std::uint8_t>&);

}  // namespace cellmill
