#include "block_headers.hpp"

#include "frames.hpp"

namespace cellmill {
namespace {

// Reads the header at `at` of a block of `values` values and moves behind it. Up to two bytes behind the frame are
// looked at, which its slack holds, before it is known whether they are the frame's.
inline Fault read_one(const std::uint8_t* frame, std::size_t size, std::size_t& at, std::uint32_t values, BlockHeader& block) noexcept {
    if (at >= size) return Fault::truncated;
    const std::uint8_t* const header = frame + at;
    const std::uint32_t mode = header[0] >> 6;
    const std::uint32_t width = header[0] & 63;
    const std::uint32_t low_bytes = (values * width + 7) / 8;
    if (mode == kUnary) {
        if (width > kMaxUnaryWidth) return Fault::header;
        at += kHeaderBytes[kUnary];
        if (at > size) return Fault::truncated;
        const std::uint32_t unary_bytes = header[1];
        if (unary_bytes == 0) return Fault::header;
        block = {kUnary, static_cast<std::uint8_t>(width), 0, 0, static_cast<std::uint16_t>(unary_bytes),
                 static_cast<std::uint16_t>(low_bytes), static_cast<std::uint16_t>(low_bytes + unary_bytes)};
        return Fault::none;
    }
    if (mode > kUnary || width > kMaxWidth) return Fault::header;
    at += kHeaderBytes[mode];
    if (at > size) return Fault::truncated;
    std::uint32_t exceptions = 0;
    std::uint32_t high_bits = 0;
    std::uint32_t entry_bytes = 0;
    if (mode == kPatched) {
        exceptions = header[1];
        high_bits = header[2];
        if (exceptions < 1 || exceptions > values || width + high_bits > kMaxWidth) return Fault::header;
        entry_bytes = (exceptions * (kPositionBits + high_bits) + 7) / 8;
    }
    block = {static_cast<std::uint8_t>(mode), static_cast<std::uint8_t>(width), static_cast<std::uint8_t>(exceptions),
             static_cast<std::uint8_t>(high_bits), 0,
             static_cast<std::uint16_t>(low_bytes), static_cast<std::uint16_t>(low_bytes + entry_bytes)};
    return Fault::none;
}

}  // namespace

Fault BlockHeaders::read(const std::uint8_t* frame, std::size_t& size, std::size_t at, bool alone, std::uint32_t nnz,
                         const std::uint8_t*& payload) {
    const std::size_t streams = 2 * ((std::size_t{nnz} + kBlock - 1) / kBlock);
    if (headers_.size() < streams) headers_.resize(2 * streams);
    const std::size_t full = 2 * (std::size_t{nnz} / kBlock);
    BlockHeader* const headers = headers_.data();
    std::size_t payload_total = 0;
    for (std::size_t stream = 0; stream < streams; ++stream) {
        const Fault fault = stream < full ? read_one(frame, size, at, kBlock, headers[stream])
                                          : read_one(frame, size, at, nnz % kBlock, headers[stream]);
        if (fault != Fault::none) return fault;
        payload_total += headers[stream].payload_bytes;
    }
    if (at + payload_total > size) return Fault::truncated;
    if (alone && at + payload_total < size) return Fault::trailing;
    size = at + payload_total;
    payload = frame + at;
    return Fault::none;
}

}  // namespace cellmill
