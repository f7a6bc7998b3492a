#include "gather.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>

#include "encode.hpp"
#include "model.hpp"
#include "parallel.hpp"
#include "random.hpp"

namespace cellmill {
namespace {

// Work that pays for starting a thread. Decoding takes about 1 ns a nonzero, and a thread starts some 50 us after it is
// asked for: two threads overtake one at about 200,000 nonzeros. Encoding takes 4 ns.
constexpr std::uint64_t kLeastDecoded = 100'000;
constexpr std::uint64_t kLeastEncoded = 20'000;

// Nonzeros before each row, up to the first row that cannot be read; `upto.size() - 1` rows are worth decoding.
struct Sizes {
    std::vector<std::int64_t> upto;
    RowFault fault;
};

// Rows whose first bytes are fetched from memory while those of one are read.
constexpr std::size_t kFrontsAhead = 12;

Sizes read_sizes(const Frames& frames, std::uint32_t n_genes, const Model* head) {
    Sizes sizes;
    sizes.upto.reserve(frames.size() + 1);
    sizes.upto.push_back(0);
    for (std::size_t row = 0; row < frames.size(); ++row) {
        if (row + kFrontsAhead < frames.size()) __builtin_prefetch(frames[row + kFrontsAhead].data());
        FrameFront front;
        const Fault fault =
            frames[row].data() == nullptr ? Fault::outside : read_front(frames[row], n_genes, head, front);
        if (fault != Fault::none) {
            sizes.fault = {row, fault};
            break;
        }
        sizes.upto.push_back(sizes.upto.back() + front.nnz);
    }
    return sizes;
}

RowFault first_fault(const std::vector<RowFault>& faults, RowFault later) {
    for (const RowFault& fault : faults)
        if (fault.fault != Fault::none) return fault;
    return later;
}

// Rows that a worker takes at a time, at most.
constexpr std::size_t kPiece = 16;

std::uint32_t row_size(const Sizes& sizes, std::size_t row) {
    return static_cast<std::uint32_t>(sizes.upto[row + 1] - sizes.upto[row]);
}

// Puts the columns of one row in order without comparing them: a bitmap of columns, and the counts by column.
class ColumnSorter {
public:
    explicit ColumnSorter(const Panel& panel) : panel_(panel) {
        if (panel.ascending()) return;
        marks_.resize((panel.n_columns() + 63) / 64);
        by_column_.resize(panel.n_columns());
    }

    // Turns the genes of a row, all of them of the panel, into its columns, ascending, each with its count.
    void map(std::int32_t* genes, std::uint32_t* counts, std::uint32_t size) {
        const std::int32_t* const column_of = panel_.column_of();
        if (panel_.ascending()) {
            for (std::uint32_t j = 0; j < size; ++j) genes[j] = column_of[genes[j]];
            return;
        }
        for (std::uint32_t j = 0; j < size; ++j) {
            const std::size_t column = static_cast<std::size_t>(column_of[genes[j]]);
            marks_[column / 64] |= std::uint64_t{1} << (column % 64);
            by_column_[column] = counts[j];
        }
        std::size_t done = 0;
        for (std::size_t word = 0; word < marks_.size(); ++word) {
            for (std::uint64_t left = marks_[word]; left != 0; left &= left - 1) {
                const std::size_t column = word * 64 + static_cast<std::size_t>(std::countr_zero(left));
                genes[done] = static_cast<std::int32_t>(column);
                counts[done++] = by_column_[column];
            }
            marks_[word] = 0;
        }
    }

private:
    const Panel& panel_;
    std::vector<std::uint64_t> marks_;
    std::vector<std::uint32_t> by_column_;
};

Csr gather_whole(const Frames& frames, std::uint32_t n_genes, const Model* head, const Sizes& sizes, Kind kind, std::uint64_t* totals,
                 std::size_t threads, std::vector<RowFault>& faults) {
    const std::size_t rows = sizes.upto.size() - 1;
    const std::size_t nnz = static_cast<std::size_t>(sizes.upto.back());
    Csr csr{Buffer<std::int64_t>(rows + 1), Buffer<std::int32_t>(nnz), Buffer<std::uint32_t>(nnz)};
    std::copy(sizes.upto.begin(), sizes.upto.end(), csr.indptr.data());
    FirstFault first;
    run_pieces(workers_for(nnz, rows, threads, kLeastDecoded), rows, kPiece, [&] {
        return [&, decoder = std::make_unique<Decoder>(head)](std::size_t begin, std::size_t end) {
            if (first.is_before(begin)) return;
            for (std::size_t row = begin; row < end; ++row) {
                fetch_ahead(frames, row);
                const Fault fault =
                    decoder->decode(frames[row], n_genes, row_size(sizes, row), csr.indices.data() + sizes.upto[row],
                                    csr.values.data() + sizes.upto[row], kind, totals == nullptr ? nullptr : totals + row);
                if (fault != Fault::none) return first.note({row, fault});
            }
        };
    });
    faults.push_back(first.found());
    return csr;
}

// What one worker keeps of its rows.
struct Share {
    std::vector<std::int64_t> kept;
    std::optional<Buffer<std::int32_t>> columns;
    std::optional<Buffer<std::uint32_t>> values;
};

// Decoders write whole vectors behind what they keep.
constexpr std::size_t kVectorRoom = 16;

// Most entries that rows can keep of a panel.
std::size_t panel_room(const Sizes& sizes, const Panel& panel, std::size_t begin, std::size_t end) {
    std::size_t room = 0;
    std::size_t widest = 0;
    for (std::size_t row = begin; row < end; ++row) {
        room += std::min<std::size_t>(row_size(sizes, row), panel.size());
        widest = std::max<std::size_t>(widest, row_size(sizes, row));
    }
    return room + widest + kVectorRoom;  // The row at hand is written before its size is known.
}

Csr join_shares(const std::vector<Share>& shares, std::size_t rows) {
    Buffer<std::int64_t> indptr(rows + 1);
    std::int64_t* to = indptr.data();
    *to = 0;
    for (const Share& share : shares)
        for (const std::int64_t kept : share.kept) {
            to[1] = to[0] + kept;
            ++to;
        }
    const std::size_t nnz = static_cast<std::size_t>(*to);
    Csr csr{std::move(indptr), Buffer<std::int32_t>(nnz), Buffer<std::uint32_t>(nnz)};
    std::size_t at = 0;
    for (const Share& share : shares) {
        std::size_t size = 0;
        for (const std::int64_t kept : share.kept) size += static_cast<std::size_t>(kept);
        if (size == 0) continue;
        std::copy_n(share.columns->data(), size, csr.indices.data() + at);
        std::copy_n(share.values->data(), size, csr.values.data() + at);
        at += size;
    }
    return csr;
}

Csr gather_panel(const Frames& frames, std::uint32_t n_genes, const Model* head, const Panel& panel, const Sizes& sizes, Kind kind,
                 std::uint64_t* totals, std::size_t threads, std::vector<RowFault>& faults) {
    const std::vector<std::size_t> borders = share_work(sizes.upto, threads, kLeastDecoded);
    const std::size_t workers = borders.size() - 1;
    faults.resize(workers);
    std::vector<Share> shares(workers);
    run_workers(workers, [&](std::size_t worker) {
        Decoder decoder(head);
        ColumnSorter sorter(panel);
        Share& share = shares[worker];
        const std::size_t room = panel_room(sizes, panel, borders[worker], borders[worker + 1]);
        share.columns.emplace(room);
        share.values.emplace(room);
        std::size_t at = 0;
        for (std::size_t row = borders[worker]; row < borders[worker + 1]; ++row) {
            fetch_ahead(frames, row);
            std::int32_t* const columns = share.columns->data() + at;
            std::uint32_t* const values = share.values->data() + at;
            std::uint32_t kept = 0;
            Fault fault = decoder.decode_some(frames[row], n_genes, row_size(sizes, row), panel.bits(), columns, values,
                                              kept, totals == nullptr ? nullptr : totals + row);
            if (fault == Fault::none) {
                sorter.map(columns, values, kept);
                if (!to_kind(kind, values, kept)) fault = Fault::count_kind;
            }
            if (fault != Fault::none) {
                faults[worker] = {row, fault};
                return;
            }
            share.kept.push_back(kept);
            at += kept;
        }
    });
    std::size_t rows = 0;
    for (const Share& share : shares) rows += share.kept.size();
    return join_shares(shares, rows);
}

// Turns counts of one cell into floats; small counts, nearly all of them, are computed once.
class Scaler {
public:
    explicit Scaler(Transform transform) noexcept : transform_(transform) {}

    void begin_cell(std::uint64_t total) noexcept {
        scale_ = total > 0 ? 1e4 / static_cast<double>(total) : 0.0;
        known_ = 0;
    }

    float operator()(std::uint32_t count) noexcept {
        if (transform_ == Transform::raw) return static_cast<float>(count);
        if (count >= small_.size()) return compute(count);
        if (!(known_ >> count & 1)) {
            small_[count] = compute(count);
            known_ |= std::uint64_t{1} << count;
        }
        return small_[count];
    }

private:
    float compute(std::uint32_t count) const noexcept {
        const double scaled = static_cast<double>(count) * scale_;
        return static_cast<float>(transform_ == Transform::log1p_cp10k ? std::log1p(scaled) : scaled);
    }

    Transform transform_;
    double scale_ = 0.0;
    std::uint64_t known_ = 0;
    std::array<float, 64> small_{};
};

// Cells as dense rows of floats.
class DenseRows {
public:
    // What one worker needs.
    struct Scratch {
        Scratch(const Model* head, Transform transform) : decoder(head), scaled(transform) {}
        Decoder decoder;
        Scaler scaled;
        std::vector<std::int32_t> genes;
        std::vector<std::uint32_t> counts;
    };

    DenseRows(const Frames& frames, std::uint32_t n_genes, const Panel* panel, Transform transform, const std::uint64_t* divisors,
              float* out, std::uint64_t* totals) noexcept
        : frames_(frames), n_genes_(n_genes), panel_(panel), transform_(transform), divisors_(divisors), out_(out), totals_(totals),
          n_columns_(panel == nullptr ? n_genes : panel->n_columns()),
          sums_(totals != nullptr || (transform != Transform::raw && divisors == nullptr)) {}

    Fault read(std::size_t row, std::uint32_t size, Scratch& scratch) const {
        fetch_ahead(frames_, row);
        if (scratch.genes.size() < size + kVectorRoom) {
            scratch.genes.resize(2 * size + kVectorRoom);
            scratch.counts.resize(2 * size + kVectorRoom);
        }
        std::int32_t* const genes = scratch.genes.data();
        std::uint32_t* const counts = scratch.counts.data();
        std::uint64_t total = 0;
        std::uint64_t* const sum = sums_ ? &total : nullptr;
        const Fault fault =
            panel_ == nullptr ? scratch.decoder.decode(frames_[row], n_genes_, size, genes, counts, Kind::uint32, sum)
                              : scratch.decoder.decode_some(frames_[row], n_genes_, size, panel_->bits(), genes, counts, size, sum);
        if (fault != Fault::none) return fault;
        if (totals_ != nullptr) totals_[row] = total;
        if (transform_ != Transform::raw) scratch.scaled.begin_cell(divisors_ != nullptr ? divisors_[row] : total);
        float* const to = out_ + row * n_columns_;
        std::fill_n(to, n_columns_, 0.0F);
        if (panel_ == nullptr) {
            for (std::uint32_t j = 0; j < size; ++j) to[genes[j]] = scratch.scaled(counts[j]);
        } else {
            const std::int32_t* const column_of = panel_->column_of();
            for (std::uint32_t j = 0; j < size; ++j) to[column_of[genes[j]]] = scratch.scaled(counts[j]);
        }
        return Fault::none;
    }

private:
    const Frames& frames_;
    std::uint32_t n_genes_;
    const Panel* panel_;
    Transform transform_;
    const std::uint64_t* divisors_;
    float* out_;
    std::uint64_t* totals_;
    std::size_t n_columns_;
    bool sums_;
};

[[noreturn]] void refuse_cell(std::size_t cell, std::size_t nonzero, std::int64_t n_genes) {
    throw std::invalid_argument("cell " + std::to_string(cell) + ": genes must be ascending, each once, in 0.." +
                                std::to_string(n_genes - 1) + ", and counts must be 1 or more; nonzero " +
                                std::to_string(nonzero) + " is not");
}

void check_indptr(std::span<const std::int64_t> indptr, std::size_t nnz) {
    bool sound = !indptr.empty() && indptr.front() == 0 && indptr.back() == static_cast<std::int64_t>(nnz);
    for (std::size_t cell = 0; sound && cell + 1 < indptr.size(); ++cell) sound = indptr[cell] <= indptr[cell + 1];
    if (!sound) throw std::invalid_argument("indptr must start at 0, never fall, and end at the number of nonzeros");
}

template <class Gene>
void check_cell(std::size_t cell, std::span<const Gene> genes, std::span<const std::uint32_t> counts,
                std::int64_t n_genes) {
    std::int64_t least = 0;
    for (std::size_t j = 0; j < genes.size(); ++j) {
        if (genes[j] < least || genes[j] >= n_genes || counts[j] == 0) refuse_cell(cell, j, n_genes);
        least = std::int64_t{genes[j]} + 1;
    }
}

}  // namespace

template <class Gene>
Encoded encode_cells(std::span<const std::int64_t> indptr, std::span<const Gene> genes,
                     std::span<const std::uint32_t> counts, std::int64_t n_genes, const Model* head,
                     std::size_t threads) {
    check_indptr(indptr, genes.size());
    const std::size_t cells = indptr.size() - 1;
    const std::vector<std::int64_t> upto(indptr.begin(), indptr.end());
    const std::vector<std::size_t> borders = share_work(upto, threads, kLeastEncoded);
    Encoded encoded;
    encoded.parts.resize(borders.size() - 1);
    encoded.offsets.assign(cells + 1, 0);
    run_workers(borders.size() - 1, [&](std::size_t worker) {
        Encoder encoder(head);
        std::vector<std::uint8_t>& out = encoded.parts[worker];
        out.reserve(static_cast<std::size_t>(upto[borders[worker + 1]] - upto[borders[worker]]));
        for (std::size_t cell = borders[worker]; cell < borders[worker + 1]; ++cell) {
            const std::size_t at = static_cast<std::size_t>(upto[cell]);
            const std::size_t size = static_cast<std::size_t>(upto[cell + 1]) - at;
            check_cell(cell, genes.subspan(at, size), counts.subspan(at, size), n_genes);
            encode_cell(encoder, genes.subspan(at, size), counts.subspan(at, size), out);
            encoded.offsets[cell + 1] = out.size();
        }
    });
    std::uint64_t before = 0;
    for (std::size_t worker = 0; worker < encoded.parts.size(); ++worker) {
        for (std::size_t cell = borders[worker]; cell < borders[worker + 1]; ++cell) encoded.offsets[cell + 1] += before;
        before += encoded.parts[worker].size();
    }
    return encoded;
}

std::pair<RowFault, std::vector<std::int64_t>> nonzeros_before(const Frames& frames, std::uint32_t n_genes, const Model* head) {
    Sizes sizes = read_sizes(frames, n_genes, head);
    return {sizes.fault, std::move(sizes.upto)};
}

std::pair<RowFault, Csr> gather_sparse(const Frames& frames, std::uint32_t n_genes, const Model* head, const Panel* panel, Kind kind,
                                       std::uint64_t* totals, std::size_t threads) {
    const Sizes sizes = read_sizes(frames, n_genes, head);
    std::vector<RowFault> faults;
    Csr csr = panel == nullptr ? gather_whole(frames, n_genes, head, sizes, kind, totals, threads, faults)
                               : gather_panel(frames, n_genes, head, *panel, sizes, kind, totals, threads, faults);
    return {first_fault(faults, sizes.fault), std::move(csr)};
}

RowFault gather_dense(const Frames& frames, std::uint32_t n_genes, const Model* head, const Panel* panel, Transform transform,
                      const std::uint64_t* divisors, float* out, std::uint64_t* totals, std::size_t threads) {
    const Sizes sizes = read_sizes(frames, n_genes, head);
    const std::size_t rows = sizes.upto.size() - 1;
    const DenseRows dense(frames, n_genes, panel, transform, divisors, out, totals);
    FirstFault first;
    run_pieces(workers_for(static_cast<std::uint64_t>(sizes.upto.back()), rows, threads, kLeastDecoded), rows, kPiece, [&] {
        return [&, scratch = std::make_unique<DenseRows::Scratch>(head, transform)](std::size_t begin, std::size_t end) {
            if (first.is_before(begin)) return;
            for (std::size_t row = begin; row < end; ++row) {
                const Fault fault = dense.read(row, row_size(sizes, row), *scratch);
                if (fault != Fault::none) return first.note({row, fault});
            }
        };
    });
    const RowFault found = first.found();
    return found.fault != Fault::none ? found : sizes.fault;
}

template <class Gene>
void fingerprint_cells(std::span<const std::int64_t> indptr, std::span<const Gene> genes,
                       std::span<const std::uint32_t> counts, std::span<const std::uint64_t> gene_hashes,
                       std::uint64_t* out, std::size_t threads) {
    check_indptr(indptr, genes.size());
    const std::vector<std::int64_t> upto(indptr.begin(), indptr.end());
    const std::vector<std::size_t> borders = share_work(upto, threads, kLeastDecoded);
    run_workers(borders.size() - 1, [&](std::size_t worker) {
        for (std::size_t cell = borders[worker]; cell < borders[worker + 1]; ++cell) {
            std::uint64_t sum = 0;
            std::uint64_t total = 0;
            for (std::size_t j = static_cast<std::size_t>(upto[cell]); j < static_cast<std::size_t>(upto[cell + 1]); ++j) {
                const std::size_t gene = static_cast<std::size_t>(genes[j]);
                if (gene >= gene_hashes.size()) throw std::invalid_argument("a gene has no hash");
                sum += mix64(gene_hashes[gene] ^ mix64(counts[j]));
                total += counts[j];
            }
            const std::uint64_t nnz = static_cast<std::uint64_t>(upto[cell + 1] - upto[cell]);
            out[cell] = mix64(sum ^ mix64(nnz ^ mix64(total)));
        }
    });
}

template Encoded encode_cells(std::span<const std::int64_t>, std::span<const std::int32_t>,
                              std::span<const std::uint32_t>, std::int64_t, const Model*, std::size_t);
template Encoded encode_cells(std::span<const std::int64_t>, std::span<const std::int64_t>,
                              std::span<const std::uint32_t>, std::int64_t, const Model*, std::size_t);
template void fingerprint_cells(std::span<const std::int64_t>, std::span<const std::int32_t>,
                                std::span<const std::uint32_t>, std::span<const std::uint64_t>, std::uint64_t*,
                                std::size_t);
template void fingerprint_cells(std::span<const std::int64_t>, std::span<const std::int64_t>,
                                std::span<const std::uint32_t>, std::span<const std::uint64_t>, std::uint64_t*,
                                std::size_t);

}  // namespace cellmill
