// Large result buffers, kept for the next call: a fresh one costs a page fault per 4 KiB, as much as decoding into it.
// Knows bytes alone. Never waits for its lock, so a fork that caught it locked costs reuse, not progress.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace cellmill {

class BufferPool {
public:
    // Never destroyed: arrays may outlive the module.
    static BufferPool& instance() {
        static BufferPool* pool = new BufferPool;
        return *pool;
    }

    struct Kept {
        void* data;
        std::size_t capacity;
    };

    // At least so many bytes: the one given back last of those that fit and are at most a quarter larger, or new ones.
    Kept take(std::size_t bytes) {
        const std::size_t capacity = round_up(bytes);
        if (capacity >= kLeast) {
            const std::unique_lock lock(mutex_, std::try_to_lock);
            if (lock) {
                for (std::size_t i = kept_.size(); i-- > 0;) {
                    const Kept found = kept_[i];
                    if (found.capacity < capacity || found.capacity > capacity + capacity / 4) continue;
                    kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(i));
                    kept_bytes_ -= found.capacity;
                    return found;
                }
            }
        }
        void* data = std::malloc(capacity);
        if (data == nullptr) throw std::bad_alloc();
        return {data, capacity};
    }

    void give(const Kept& memory) noexcept {
        const auto [data, capacity] = memory;
        if (capacity >= kLeast && capacity <= kMostKept) {
            const std::unique_lock lock(mutex_, std::try_to_lock);
            if (lock) {
                while (!kept_.empty() && (kept_bytes_ + capacity > kMostKept || kept_.size() >= kSlots)) {
                    kept_bytes_ -= kept_.front().capacity;
                    std::free(kept_.front().data);
                    kept_.erase(kept_.begin());
                }
                kept_.push_back({data, capacity});
                kept_bytes_ += capacity;
                return;
            }
        }
        std::free(data);
    }

private:
    static constexpr std::size_t kLeast = std::size_t{1} << 16;
    static constexpr std::size_t kMostKept = std::size_t{3} << 25;
    static constexpr std::size_t kSlots = 32;

    BufferPool() { kept_.reserve(kSlots + 1); }

    // Eighths of a power of two, so that batches of almost one size share a buffer.
    static std::size_t round_up(std::size_t bytes) noexcept {
        if (bytes < 64) return 64;
        const std::size_t step = std::bit_floor(bytes) / 8;
        return (bytes + step - 1) / step * step;
    }

    std::mutex mutex_;
    std::vector<Kept> kept_;
    std::size_t kept_bytes_ = 0;
};

// Uninitialised memory for `size` values of T, back in the pool when it goes out of scope unless released.
template <class T>
class Buffer {
public:
    explicit Buffer(std::size_t size) : size_(size), memory_(BufferPool::instance().take(size * sizeof(T))) {}
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer(Buffer&& other) noexcept : size_(other.size_), memory_(other.memory_) { other.memory_.data = nullptr; }
    ~Buffer() {
        if (memory_.data != nullptr) BufferPool::instance().give(memory_);
    }

    T* data() const noexcept { return static_cast<T*>(memory_.data); }
    std::size_t size() const noexcept { return size_; }

private:
    std::size_t size_;
    BufferPool::Kept memory_;
};

}  // namespace cellmill
