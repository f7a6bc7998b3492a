// What reading and writing frames share: modes of blocks and the limits of their headers (docs/reference/format.md).
#pragma once

#include <cstddef>
#include <cstdint>

namespace cellmill {

enum Mode : std::uint32_t { kPlain = 0, kPatched = 1, kUnary = 2 };

inline constexpr std::uint32_t kPositionBits = 7;
inline constexpr std::uint32_t kMaxWidth = 32;
inline constexpr std::uint32_t kMaxUnaryWidth = 16;
inline constexpr std::size_t kHeaderBytes[] = {1, 3, 2};
inline constexpr std::uint64_t kMaxCountLessOne = 0xFFFFFFFEULL;

// Bytes that can be read behind the copy of a frame that is decoded.
inline constexpr std::size_t kSlack = 128;

// Gaps of so many bits and their sums over a block leave room in 32 bits: 128 * (2^22 + 2^22) < 2^31.
inline constexpr std::uint32_t kNarrow = 22;

inline constexpr std::size_t to_bytes(std::size_t bits) noexcept { return (bits + 7) / 8; }

}  // namespace cellmill
