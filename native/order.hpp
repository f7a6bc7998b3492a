// The keyed bijection of 0..n-1: a balanced Feistel network, walked until the image is below n.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
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

    // The images of many positions, each below n. Some are computed side by side, since each round waits for the one
    // before; those that are not below n yet go on together, without a branch for each.
    void map(const std::uint64_t* positions, std::size_t count, std::uint64_t* images) const noexcept {
        std::uint64_t x[kTogether];
        std::uint16_t place[kTogether];
        for (std::size_t begin = 0; begin < count; begin += kTogether) {
            std::size_t left = count - begin < kTogether ? count - begin : kTogether;
            for (std::size_t i = 0; i < left; ++i) {
                x[i] = positions[begin + i];
                place[i] = static_cast<std::uint16_t>(i);
            }
            while (left > 0) {
                for (std::size_t i = left; i % kLanes != 0; ++i) x[i] = 0;
                for (std::size_t i = 0; i < left; i += kLanes) once_each(x + i);
                std::size_t still = 0;
                for (std::size_t i = 0; i < left; ++i) {
                    const std::uint64_t image = x[i];
                    images[begin + place[i]] = image;
                    place[still] = place[i];
                    x[still] = image;
                    still += image >= n_;
                }
                left = still;
            }
        }
    }

private:
    static constexpr std::uint64_t kRounds = 8;
    static constexpr std::size_t kLanes = 4;
    static constexpr std::size_t kTogether = 256;

    void once_each(std::uint64_t* x) const noexcept {
        std::uint64_t left[kLanes], right[kLanes];
        for (std::size_t lane = 0; lane < kLanes; ++lane) {
            left[lane] = x[lane] >> half_;
            right[lane] = x[lane] & mask_;
        }
        for (const std::uint64_t round_key : round_keys_) {
            for (std::size_t lane = 0; lane < kLanes; ++lane) {
                const std::uint64_t next = left[lane] ^ (mix64(right[lane] ^ round_key) & mask_);
                left[lane] = right[lane];
                right[lane] = next;
            }
        }
        for (std::size_t lane = 0; lane < kLanes; ++lane) x[lane] = (left[lane] << half_) | right[lane];
    }

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
