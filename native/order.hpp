// The keyed bijection of 0..n-1: a balanced Feistel network, walked until the image is below n.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "random.hpp"

namespace cellmill {

class KeyedBijection {
public:
    KeyedBijection(std::uint64_t n, std::uint64_t key) noexcept : n_(n) {
        const int bits = n > 1 ? std::bit_width(n - 1) : 0;
        half_ = bits > 1 ? (bits + 1) / 2 : 1;
        mask_ = (std::uint64_t{1} << half_) - 1;
        for (std::uint64_t round = 0; round < kRounds; ++round) round_keys_[round] = mix64(key + round * kGamma);
    }

    // `position` must be below n; the walk ends because the orbit of a position returns to it.
    std::uint64_t operator()(std::uint64_t position) const noexcept {
        std::uint64_t x = position;
        do x = once(x);
        while (x >= n_);
        return x;
    }

private:
    static constexpr std::uint64_t kRounds = 8;

    std::uint64_t once(std::uint64_t x) const noexcept {
        std::uint64_t left = x >> half_;
        std::uint64_t right = x & mask_;
        for (const std::uint64_t round_key : round_keys_) {
            const std::uint64_t next = left ^ (mix64(right ^ round_key) & mask_);
            left = right;
            right = next;
        }
        return (left << half_) | right;
    }

    std::uint64_t n_;
    int half_;
    std::uint64_t mask_;
    std::array<std::uint64_t, kRounds> round_keys_{};
};

}  // namespace cellmill
