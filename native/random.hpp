// Keyed randomness: mix64 and counter-based numbers. The same formulas as src/cellmill/kernel/reference/random.py.
#pragma once

#include <cstdint>

namespace cellmill {

inline constexpr std::uint64_t kGamma = 0x9E3779B97F4A7C15ULL;

// One step of SplitMix64 seeded with x.
inline constexpr std::uint64_t mix64(std::uint64_t x) noexcept {
    std::uint64_t z = x + kGamma;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

// The key of number `counter` of every cell; combine it with a cell by keyed_u64.
inline constexpr std::uint64_t stream_key(std::uint64_t key, std::uint64_t counter) noexcept {
    return mix64(mix64(key) + counter * kGamma);
}

inline constexpr std::uint64_t keyed_u64(std::uint64_t stream, std::uint64_t uid) noexcept {
    return mix64(stream ^ mix64(uid));
}

}  // namespace cellmill
