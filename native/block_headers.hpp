// The headers of a frame's blocks, read and checked before any payload: what every way of decoding with vectors starts from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec.hpp"

namespace cellmill {

struct BlockHeader {
    std::uint8_t mode;
    std::uint8_t width;
    std::uint8_t exceptions;
    std::uint8_t high_bits;
    std::uint16_t unary_bytes;
    std::uint16_t low_bytes;
    std::uint16_t payload_bytes;
};

// The headers of one frame, gaps and counts by turns; holds the scratch of one thread.
class BlockHeaders {
public:
    // Reads the headers that begin at `at` and checks that their payloads fit `size` bytes. `size` becomes where the last
    // payload ends; when the blocks are `alone` that must be where it was. `payload` becomes where the first one begins.
    Fault read(const std::uint8_t* frame, std::size_t& size, std::size_t at, bool alone, std::uint32_t nnz,
               const std::uint8_t*& payload);

    const BlockHeader* data() const noexcept { return headers_.data(); }

private:
    std::vector<BlockHeader> headers_;
};

}  // namespace cellmill
