// Reading frames with 64-byte vectors, where the processor has them (AVX-512 with VBMI2). The same cells and the same
// refusals as the plain way; Decoder (decode.cpp) picks one of the two.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec.hpp"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define CELLMILL_WIDE 1
#else
#define CELLMILL_WIDE 0
#endif

namespace cellmill {

// Scratch of one thread.
class WideDecoder {
public:
    static bool available() noexcept;

    static std::uint64_t sum(const std::uint32_t* counts, std::size_t size) noexcept;
    // Rewrites counts in place as float32, rounded to nearest, and returns the largest count.
    static std::uint32_t to_floats(std::uint32_t* counts, std::size_t size) noexcept;

    // As Decoder's: `frame` is followed by at least kSlack readable bytes, and its headers begin at `at`. `size` becomes
    // where the blocks end; when they are to be `alone` that is where it was.
    Fault decode(const std::uint8_t* frame, std::size_t& size, std::size_t at, bool alone, std::uint32_t n_genes,
                 std::uint32_t nnz, std::int32_t* genes, std::uint32_t* counts);

    Fault decode_some(const std::uint8_t* frame, std::size_t size, std::size_t at, std::uint32_t n_genes,
                      std::uint32_t nnz, GeneBits wanted, std::int32_t* genes, std::uint32_t* counts, std::uint32_t& kept,
                      std::uint64_t* total);

    struct Block {
        std::uint8_t mode;
        std::uint8_t width;
        std::uint8_t exceptions;
        std::uint8_t high_bits;
        std::uint32_t unary_bytes;
        std::uint32_t low_bytes;
        std::uint32_t payload_bytes;
    };

private:
    Fault read_headers(const std::uint8_t* frame, std::size_t& size, std::size_t at, bool alone, std::uint32_t nnz,
                       const std::uint8_t*& payload);

    static constexpr std::size_t kOnesBegin = 32;
    alignas(64) std::array<std::uint16_t, kOnesBegin + kMaxUnaryBytes * 8 + 128> ones_{};
    alignas(64) std::array<std::uint32_t, kBlock> low_{};
    alignas(64) std::array<std::int32_t, kBlock + 16> genes_{};
    alignas(64) std::array<std::uint32_t, kBlock + 16> counts_{};
    std::vector<Block> blocks_;
};

}  // namespace cellmill
