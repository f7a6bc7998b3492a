// Threads for one call: started and joined inside it, so that a fork between calls finds nothing of ours.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace cellmill {

// Runs task(0) ... task(workers - 1), the first on the calling thread. Rethrows the exception of the lowest worker.
template <class Task>
void run_workers(std::size_t workers, const Task& task) {
    std::vector<std::exception_ptr> errors(workers);
    const auto guarded = [&](std::size_t worker) noexcept {
        try {
            task(worker);
        } catch (...) {
            errors[worker] = std::current_exception();
        }
    };
    std::vector<std::thread> threads;
    threads.reserve(workers);
    std::size_t started = 1;
    try {
        for (; started < workers; ++started) threads.emplace_back(guarded, started);
    } catch (const std::system_error&) {
        // The system gives no more threads: the calling one does the rest.
    }
    guarded(0);
    for (std::size_t worker = started; worker < workers; ++worker) guarded(worker);
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& error : errors)
        if (error) std::rethrow_exception(error);
}

// Runs task(begin, end) over 0..items-1 in pieces that whichever worker is free takes next: the calling thread works while
// the others are being started, which takes as long as decoding dozens of cells. make() gives each worker its task.
template <class Make>
void run_pieces(std::size_t workers, std::size_t items, std::size_t most_in_piece, const Make& make) {
    if (workers <= 1) {
        make()(std::size_t{0}, items);
        return;
    }
    const std::size_t piece = std::clamp<std::size_t>(items / (4 * workers), 1, most_in_piece);
    std::atomic<std::size_t> next{0};
    run_workers(workers, [&](std::size_t) {
        auto task = make();
        for (std::size_t begin = next.fetch_add(piece); begin < items; begin = next.fetch_add(piece))
            task(begin, std::min(items, begin + piece));
    });
}

// Workers that pay for being started, for so much work.
inline std::size_t workers_for(std::uint64_t work, std::size_t items, std::size_t threads, std::uint64_t least) {
    return static_cast<std::size_t>(
        std::clamp<std::uint64_t>(work / least, 1, std::max<std::uint64_t>(1, std::min(threads, items))));
}

// Borders of contiguous shares of about equal work. `upto[i]` is the work before item i; size = items + 1.
// A share is at least `least` units of work, so that small calls stay on one thread.
template <class Work>
std::vector<std::size_t> share_work(const std::vector<Work>& upto, std::size_t threads, std::uint64_t least) {
    const std::size_t items = upto.size() - 1;
    const std::uint64_t base = static_cast<std::uint64_t>(upto.front());
    const std::uint64_t total = static_cast<std::uint64_t>(upto.back()) - base;
    const std::size_t workers = workers_for(total, items, threads, least);
    std::vector<std::size_t> borders(workers + 1, items);
    borders[0] = 0;
    for (std::size_t worker = 1; worker < workers; ++worker) {
        const std::uint64_t aim = base + static_cast<std::uint64_t>(
            static_cast<double>(total) / static_cast<double>(workers) * static_cast<double>(worker));
        const auto at = std::lower_bound(upto.begin(), upto.end(), static_cast<Work>(aim));
        borders[worker] = std::clamp(static_cast<std::size_t>(at - upto.begin()), borders[worker - 1], items);
    }
    return borders;
}

}  // namespace cellmill
