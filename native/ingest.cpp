#include "ingest.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "encode.hpp"
#include "parallel.hpp"
#include "proof.hpp"
#include "random.hpp"

namespace cellmill {
namespace {

// Work that pays for starting a thread.
constexpr std::uint64_t kLeastNonzeros = 20'000;

constexpr std::uint64_t kMostCount = 0xFFFFFFFFULL;

// mix64 of small counts, which nearly all are.
constexpr auto kMixed = [] {
    std::array<std::uint64_t, 256> mixed{};
    for (std::size_t count = 0; count < mixed.size(); ++count) mixed[count] = mix64(count);
    return mixed;
}();

std::uint64_t mixed_count(std::uint32_t count) noexcept { return count < kMixed.size() ? kMixed[count] : mix64(count); }

// Slots: the genes of the store by position, then, from a whole word of the bitmap on, the genes that have none.
// So every gene of the source has a slot, and a slot belongs to one of them unless the map shares positions.
struct Slots {
    explicit Slots(const GeneMap& genes) : n_positions(genes.hashes.size()) {
        first_unmatched = (n_positions + 63) / 64 * 64;
        slot_of.reserve(genes.position_of.size());
        std::size_t next = first_unmatched;
        std::vector<bool> taken(n_positions);
        for (const std::int32_t position : genes.position_of) {
            if (position < 0) {
                slot_of.push_back(static_cast<std::uint32_t>(next++));
                continue;
            }
            const std::size_t at = static_cast<std::size_t>(position);
            if (at >= n_positions) throw std::invalid_argument("position_of names a gene that the store has not");
            shared = shared || taken[at];
            taken[at] = true;
            slot_of.push_back(static_cast<std::uint32_t>(at));
        }
        n_slots = next;
    }

    std::size_t n_positions;
    std::size_t first_unmatched = 0;
    std::size_t n_slots = 0;
    bool shared = false;
    std::vector<std::uint32_t> slot_of;
};

// Numbers kept by key: added in any order, taken out in ascending order of the keys, without comparing them.
class Bitmap {
public:
    explicit Bitmap(std::size_t n_keys) : words_((n_keys + 63) / 64) {}

    void mark(std::size_t key) noexcept { words_[key / 64] |= std::uint64_t{1} << (key % 64); }

    bool is_marked(std::size_t key) const noexcept { return (words_[key / 64] >> (key % 64) & 1) != 0; }

    // Writes the marked keys below `stop` (a multiple of 64, or all) from `start`, clears them, returns how many.
    template <class Key>
    std::size_t take(std::size_t start, std::size_t stop, Key* keys) noexcept {
        std::size_t taken = 0;
        const std::size_t end = std::min((stop + 63) / 64, words_.size());
        for (std::size_t word = start / 64; word < end; ++word) {
            const std::size_t first = word * 64;
            for (std::uint64_t left = words_[word]; left != 0; left &= left - 1)
                keys[taken++] = static_cast<Key>(first + static_cast<std::size_t>(std::countr_zero(left)));
            words_[word] = 0;
        }
        return taken;
    }

private:
    std::vector<std::uint64_t> words_;
};

struct PerSlot {
    std::uint64_t umis = 0;
    std::int64_t cells = 0;
};

// One worker: its scratch, and what its cells add up to. `Sum` holds what one slot of a cell adds up to: 64 bits wide
// where several genes of the source may share it.
template <class Sum>
class Worker {
public:
    Worker(const StoredCells& cells, const GeneMap& genes, const Slots& slots)
        : cells_(cells), genes_(genes), slots_(slots), marks_(slots.n_slots), sum_of_(slots.n_slots),
          per_slot_(slots.n_slots), positions_(slots.n_slots), counts_(slots.n_positions), encoder_(genes.head) {
        if (kShared) umis_.resize(genes.position_of.size());
    }

    BlockRefusal refused;
    std::uint32_t largest = 0;
    std::uint64_t nonzeros = 0;
    std::uint64_t merged = 0;

    // Writes the frame of a cell at `to`, fills its row of `out`, and returns the end; null when its values are refused.
    std::uint8_t* take(std::size_t cell, std::uint8_t* to, IngestedCells& out) {
        if (!load(cell)) return nullptr;
        if (!genes_.classes.empty()) measure(cell, out.whole);
        scatter();
        const std::size_t kept = marks_.take(0, slots_.n_positions, positions_.data());
        std::uint64_t hash = 0;
        std::uint64_t total = 0;
        std::uint64_t most = 0;
        for (std::size_t j = 0; j < kept; ++j) {
            const std::size_t position = static_cast<std::size_t>(positions_[j]);
            const std::uint64_t sum = sum_of_[position];
            const std::uint32_t count = static_cast<std::uint32_t>(sum);
            counts_[j] = count;
            most = std::max(most, sum);
            total += sum;
            hash += mix64(genes_.hashes[position] ^ mixed_count(count));
            PerSlot& slot = per_slot_[position];
            if (!kShared) slot.umis += sum;
            ++slot.cells;
        }
        count_unmatched(kept);
        if (most > kMostCount) {
            if (refused.why == Refusal::none) refused = {Refusal::sum, cell, most};
            return to;
        }
        largest = std::max(largest, static_cast<std::uint32_t>(most));
        nonzeros += kept;
        out.totals.data()[cell] = static_cast<std::int64_t>(total);
        out.detected.data()[cell] = static_cast<std::int32_t>(kept);
        out.fingerprints.data()[cell] = mix64(hash ^ mix64(kept ^ mix64(total)));
        return encoder_.write(positions_.data(), counts_.data(), kept, to);
    }

    void add_to(IngestedCells& out) const noexcept {
        for (std::size_t gene = 0; gene < slots_.slot_of.size(); ++gene)
            out.umis.data()[gene] += kShared ? umis_[gene] : per_slot_[slots_.slot_of[gene]].umis;
        for (std::size_t position = 0; position < slots_.n_positions; ++position)
            out.cells_with.data()[position] += per_slot_[position].cells;
        out.largest = std::max(out.largest, largest);
        out.nonzeros += nonzeros;
        out.merged += merged;
    }

private:
    static constexpr bool kShared = sizeof(Sum) == 8;

    // Makes `index_` and `value_` of the stored entries: proven, ascending, each gene once, no zeros.
    bool load(std::size_t cell) {
        const std::size_t begin = static_cast<std::size_t>(cells_.indptr[cell]);
        size_ = static_cast<std::size_t>(cells_.indptr[cell + 1]) - begin;
        if (own_values_.size() < size_) {
            own_values_.resize(2 * size_);
            own_indices_.resize(2 * size_);
        }
        const bool proven = std::visit(
            [&](const auto* values) { return prove_counts(values + begin, size_, own_values_.data()); }, cells_.values);
        if (!proven) {
            refused = {Refusal::value, cell, 0};
            return false;
        }
        bool rises = true;
        const std::size_t outside =
            std::visit([&](const auto* indices) { return load_indices(indices + begin, rises); }, cells_.indices);
        if (outside < size_) {
            refused = {Refusal::index, cell, begin + outside};
            return false;
        }
        if (!rises && !sum_repeated(cell)) return false;
        drop_zeros();
        return true;
    }

    // Returns the first entry whose index is out of range, or `size_`.
    template <class Index>
    std::size_t load_indices(const Index* indices, bool& rises) {
        bool falls = false;
        for (std::size_t j = 1; j < size_; ++j) falls |= indices[j] <= indices[j - 1];
        rises = !falls;
        const auto is_outside = [n = genes_.position_of.size()](Index index) {
            return static_cast<std::uint64_t>(index) >= n;  // A negative one, too.
        };
        if (falls) {
            for (std::size_t j = 0; j < size_; ++j)
                if (is_outside(indices[j])) return j;
        } else if (size_ > 0 && (is_outside(indices[0]) || is_outside(indices[size_ - 1]))) {
            return static_cast<std::size_t>(std::find_if(indices, indices + size_, is_outside) - indices);
        }
        if constexpr (sizeof(Index) == sizeof(std::uint32_t)) {
            index_ = reinterpret_cast<const std::uint32_t*>(indices);  // The other sign of one type may be read so.
        } else {
            for (std::size_t j = 0; j < size_; ++j) own_indices_[j] = static_cast<std::uint32_t>(indices[j]);
            index_ = own_indices_.data();
        }
        return size_;
    }

    // Puts entries in order and sums those of one gene; false when a sum is no count.
    bool sum_repeated(std::size_t cell) {
        if (!in_order_) in_order_.emplace(genes_.position_of.size());
        Ordered& by_gene = *in_order_;
        for (std::size_t j = 0; j < size_; ++j) {
            const std::size_t gene = index_[j];
            const bool again = by_gene.marks.is_marked(gene);
            by_gene.sum_of[gene] = own_values_[j] + (again ? by_gene.sum_of[gene] : 0);
            by_gene.marks.mark(gene);
            merged += again;
        }
        size_ = by_gene.marks.take(0, genes_.position_of.size(), own_indices_.data());
        index_ = own_indices_.data();
        std::uint64_t most = 0;
        for (std::size_t j = 0; j < size_; ++j) {
            const std::uint64_t sum = by_gene.sum_of[index_[j]];
            most = std::max(most, sum);
            own_values_[j] = static_cast<std::uint32_t>(sum);
        }
        if (most > kMostCount) refused = {Refusal::value, cell, 0};
        return most <= kMostCount;
    }

    void drop_zeros() noexcept {
        bool zero = false;
        for (std::size_t j = 0; j < size_; ++j) zero |= own_values_[j] == 0;
        if (!zero) return;
        std::size_t kept = 0;
        for (std::size_t j = 0; j < size_; ++j) {
            const std::uint32_t count = own_values_[j];
            own_indices_[kept] = index_[j];
            own_values_[kept] = count;
            kept += count != 0;
        }
        index_ = own_indices_.data();
        size_ = kept;
    }

    // What the cell holds over all genes of the source.
    void measure(std::size_t cell, IngestedCells::Whole& whole) const noexcept {
        std::uint64_t total = 0;
        std::uint32_t most = 0;
        for (std::size_t j = 0; j < size_; ++j) {
            total += own_values_[j];
            most = std::max(most, own_values_[j]);
        }
        std::uint64_t sums[kClasses] = {};
        const std::uint8_t* const classes = genes_.classes.data();
        for (std::size_t j = 0; j < size_; ++j) {
            const std::uint32_t of = classes[index_[j]];
            if (of == 0) continue;  // Few genes are of a class.
            for (std::size_t c = 0; c < kClasses; ++c) sums[c] += (of >> c & 1) * std::uint64_t{own_values_[j]};
        }
        whole.totals.data()[cell] = static_cast<std::int64_t>(total);
        whole.most.data()[cell] = most;
        whole.detected.data()[cell] = static_cast<std::int32_t>(size_);
        for (std::size_t c = 0; c < kClasses; ++c) whole.of_class.data()[kClasses * cell + c] = static_cast<std::int64_t>(sums[c]);
    }

    void scatter() noexcept {
        for (std::size_t j = 0; j < size_; ++j) {
            const std::uint32_t gene = index_[j];
            const std::uint32_t count = own_values_[j];
            const std::size_t slot = slots_.slot_of[gene];
            if constexpr (kShared) {
                umis_[gene] += count;
                sum_of_[slot] = count + (marks_.is_marked(slot) ? sum_of_[slot] : 0);
            } else {
                sum_of_[slot] = count;
            }
            marks_.mark(slot);
        }
    }

    void count_unmatched(std::size_t kept) noexcept {
        std::int32_t* unmatched = positions_.data() + kept;
        const std::size_t found = marks_.take(slots_.first_unmatched, slots_.n_slots, unmatched);
        if (kShared) return;
        for (std::size_t j = 0; j < found; ++j) {
            const std::size_t slot = static_cast<std::size_t>(unmatched[j]);
            per_slot_[slot].umis += sum_of_[slot];
        }
    }

    struct Ordered {
        explicit Ordered(std::size_t n_genes) : marks(n_genes), sum_of(n_genes) {}
        Bitmap marks;
        std::vector<std::uint64_t> sum_of;
    };

    const StoredCells& cells_;
    const GeneMap& genes_;
    const Slots& slots_;

    const std::uint32_t* index_ = nullptr;
    std::size_t size_ = 0;
    std::vector<std::uint32_t> own_indices_;
    std::vector<std::uint32_t> own_values_;
    std::optional<Ordered> in_order_;  // Of the source's genes; most sources are in order and need none.

    Bitmap marks_;
    std::vector<Sum> sum_of_;
    std::vector<PerSlot> per_slot_;
    std::vector<std::uint64_t> umis_;
    std::vector<std::int32_t> positions_;
    std::vector<std::uint32_t> counts_;
    Encoder encoder_;
};

void check(const StoredCells& cells) {
    bool sound = !cells.indptr.empty() && cells.indptr.front() == 0 &&
                 cells.indptr.back() == static_cast<std::int64_t>(cells.stored);
    for (std::size_t cell = 0; sound && cell + 1 < cells.indptr.size(); ++cell)
        sound = cells.indptr[cell] <= cells.indptr[cell + 1];
    if (!sound) throw std::invalid_argument("indptr must start at 0, never fall, and end at the number of stored entries");
}

// The first refusal of the lowest cell; a value that is no count comes before a sum that is too large.
BlockRefusal first_refusal(const std::vector<BlockRefusal>& refusals) noexcept {
    BlockRefusal first;
    for (const BlockRefusal& refusal : refusals) {
        if (refusal.why == Refusal::value || refusal.why == Refusal::index) return refusal;
        if (first.why == Refusal::none) first = refusal;
    }
    return first;
}

template <class Sum>
IngestedCells ingest(const StoredCells& cells, const GeneMap& genes, const Slots& slots, std::size_t threads) {
    const std::vector<std::int64_t> upto(cells.indptr.begin(), cells.indptr.end());
    const std::vector<std::size_t> borders = share_work(upto, threads, kLeastNonzeros);
    const std::size_t workers = borders.size() - 1;
    const Encoder encoder(genes.head);
    // Every worker has room for the worst that its cells can become; what is not written costs no memory.
    std::vector<std::size_t> begin(workers + 1, 0);
    for (std::size_t worker = 0; worker < workers; ++worker) {
        const std::size_t stored = static_cast<std::size_t>(upto[borders[worker + 1]] - upto[borders[worker]]);
        begin[worker + 1] = begin[worker] + encoder.room(stored) + (borders[worker + 1] - borders[worker]) * encoder.room(0);
    }
    IngestedCells out(cells, genes, begin[workers]);
    std::fill_n(out.umis.data(), out.umis.size(), 0);
    std::fill_n(out.cells_with.data(), out.cells_with.size(), 0);
    out.offsets.data()[0] = 0;
    std::vector<std::optional<Worker<Sum>>> states(workers);
    std::vector<BlockRefusal> refusals(workers);
    run_workers(workers, [&](std::size_t worker) {
        Worker<Sum>& state = states[worker].emplace(cells, genes, slots);
        std::uint8_t* const first = out.frames.data() + begin[worker];
        std::uint8_t* to = first;
        for (std::size_t cell = borders[worker]; cell < borders[worker + 1]; ++cell) {
            to = state.take(cell, to, out);
            if (to == nullptr) break;
            out.offsets.data()[cell + 1] = static_cast<std::uint64_t>(to - first);
        }
        refusals[worker] = state.refused;
    });
    out.refusal = first_refusal(refusals);
    if (out.refusal.why != Refusal::none) return out;
    std::uint64_t before = 0;
    for (std::size_t worker = 0; worker < workers; ++worker) {
        states[worker]->add_to(out);
        const std::uint64_t bytes =
            borders[worker + 1] > borders[worker] ? out.offsets.data()[borders[worker + 1]] : 0;
        std::memmove(out.frames.data() + before, out.frames.data() + begin[worker], bytes);
        for (std::size_t cell = borders[worker]; cell < borders[worker + 1]; ++cell) out.offsets.data()[cell + 1] += before;
        before += bytes;
    }
    return out;
}

}  // namespace

IngestedCells ingest_cells(const StoredCells& cells, const GeneMap& genes, std::size_t threads) {
    check(cells);
    const Slots slots(genes);
    return slots.shared ? ingest<std::uint64_t>(cells, genes, slots, threads)
                        : ingest<std::uint32_t>(cells, genes, slots, threads);
}

}  // namespace cellmill
