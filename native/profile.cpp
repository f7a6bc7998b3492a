#include "profile.hpp"

#include <memory>
#include <numeric>
#include <string>

namespace cellmill {
namespace {

constexpr std::uint32_t kLacking = std::numeric_limits<std::uint32_t>::max();

// One gene of a row on its way there.
struct Gene {
    std::uint32_t place;  // Of its nonzero in the cell; kLacking for a gene that the cell lacks.
    std::int32_t column;
};
struct Keyed {
    std::uint64_t key;
    Gene gene;
};

// What small counts of one cell become, each computed once: most counts of a cell are a few numbers again and again.
class SmallCounts {
public:
    void start() noexcept { ++now_; }

    template <class Compute>
    float of(std::uint32_t count, const Compute& compute) {
        if (count >= kSmall) return compute(count);
        if (made_[count] != now_) {
            made_[count] = now_;
            values_[count] = compute(count);
        }
        return values_[count];
    }

private:
    static constexpr std::size_t kSmall = 512;
    std::array<float, kSmall> values_{};
    std::array<std::uint64_t, kSmall> made_{};
    std::uint64_t now_ = 0;
};

float log_scaled(std::uint32_t count, double total, double scale) noexcept {
    return static_cast<float>(std::log1p(static_cast<double>(count) / total * scale));
}

// Keeps what is not a number, as torch's clamp does.
float clipped(float value, float most) noexcept { return value > most ? most : value; }

class ProfileMaker {
public:
    ProfileMaker(const TokenCells& cells, const ProfileRules& rules, const ProfilePlan& plan, const ProfileNumbers& numbers,
                 const ProfileOut& out, std::span<const std::uint64_t> mixed, std::span<const std::uint32_t> ranks)
        : cells_(cells), rules_(rules), plan_(plan), given_(numbers), out_(out), mixed_(mixed), ranks_(ranks) {}

    void make(std::size_t cell) {
        begin_ = cells_.begin(cell);
        nnz_ = cells_.nnz(cell);
        key_ = cells_.keys[cell];
        const std::size_t room = static_cast<std::size_t>(std::max<std::int64_t>(plan_.room[cell], 0));
        kept_.resize(nnz_);
        for (std::size_t i = 0; i < nnz_; ++i) kept_[i] = {static_cast<std::uint32_t>(i), cells_.columns[begin_ + i]};
        fit(kept_, room);
        n_own_ = kept_.size();
        if (rules_.zeros && n_own_ < room) add_lacking(room - n_own_);
        measure(cell);
        mark();
        write(cell);
    }

private:
    std::int64_t token(const Gene& gene) const noexcept { return cells_.token_of[static_cast<std::size_t>(gene.column)]; }
    std::uint32_t count(const Gene& gene) const noexcept { return gene.place == kLacking ? 0 : cells_.counts[begin_ + gene.place]; }

    std::uint64_t number(const Gene& gene, std::span<const std::uint64_t> given, Purpose purpose) const noexcept {
        if (!given.empty() && gene.place != kLacking) return given[begin_ + gene.place];
        return GeneNumbers(key_, purpose).of_mixed(mixed_[static_cast<std::size_t>(gene.column)]);
    }

    // A sample is drawn first and then put in order; without one the order says which genes come first.
    void fit(std::vector<Gene>& genes, std::size_t most) {
        if (rules_.choose != ProfileChoose::first) sample(genes, most);
        arrange(genes, most);
        if (genes.size() > most) genes.resize(most);
    }

    // The genes of the smallest ranks stay, in the order that they have.
    void sample(std::vector<Gene>& genes, std::size_t most) {
        if (genes.size() <= most) return;
        numbers_.resize(genes.size());
        for (std::size_t i = 0; i < genes.size(); ++i) numbers_[i] = rank(genes[i]);
        chosen_.resize(genes.size());
        picker_.pick(numbers_, most, chosen_.data());
        std::size_t at = 0;
        for (std::size_t i = 0; i < genes.size(); ++i)
            if (chosen_[i]) genes[at++] = genes[i];
        genes.resize(at);
    }

    // By log counts: the first arrivals of processes whose rates are log1p(count), which is drawing one gene after the other
    // with probability weight / sum of the weights that are left.
    std::uint64_t rank(const Gene& gene) const noexcept {
        const std::uint64_t drawn = number(gene, given_.sample, Purpose::sample);
        if (rules_.choose == ProfileChoose::uniform || gene.place == kLacking) return drawn;
        const double wait = 0.0 - std::log((static_cast<double>(drawn >> 11) + 0.5) * 0x1p-53);  // Not -0.0, whose bits are large.
        return std::bit_cast<std::uint64_t>(wait / std::log1p(static_cast<double>(count(gene))));
    }

    // Puts the first `most` genes in order; others may stand behind them.
    void arrange(std::vector<Gene>& genes, std::size_t most) {
        switch (rules_.order) {
            case ProfileOrder::axis:
                return;
            case ProfileOrder::token:
                if (!ranks_.empty()) arrange_by_token(genes);
                return;
            case ProfileOrder::count:
                return arrange_by(genes, most, [this](const Gene& gene) { return (std::uint64_t{~count(gene)} << 32) | rank_of(gene); });
            case ProfileOrder::keyed:
                return arrange_by(genes, most, [this](const Gene& gene) { return number(gene, given_.order, Purpose::order); });
        }
    }

    std::uint32_t rank_of(const Gene& gene) const noexcept {
        const auto column = static_cast<std::size_t>(gene.column);
        return ranks_.empty() ? static_cast<std::uint32_t>(column) : ranks_[column];
    }

    // One bit for each token: reading them in order is much cheaper than sorting.
    void arrange_by_token(std::vector<Gene>& genes) {
        bits_.resize(ranks_.size() / 64 + 1);
        at_rank_.resize(ranks_.size());
        for (const Gene& gene : genes) {
            const std::uint32_t rank = rank_of(gene);
            bits_[rank / 64] |= std::uint64_t{1} << (rank % 64);
            at_rank_[rank] = gene;
        }
        std::size_t at = 0;
        for (std::size_t word = 0; word < bits_.size(); ++word) {
            for (; bits_[word] != 0; bits_[word] &= bits_[word] - 1)
                genes[at++] = at_rank_[word * 64 + static_cast<std::size_t>(std::countr_zero(bits_[word]))];
        }
    }

    // Equal keys: in the order of the axis.
    template <class Key>
    void arrange_by(std::vector<Gene>& genes, std::size_t most, const Key& key) {
        keyed_.resize(genes.size());
        for (std::size_t i = 0; i < genes.size(); ++i) keyed_[i] = {key(genes[i]), genes[i]};
        const auto before = [](const Keyed& a, const Keyed& b) { return a.key != b.key ? a.key < b.key : a.gene.column < b.gene.column; };
        const auto middle = keyed_.begin() + static_cast<std::ptrdiff_t>(std::min(most, genes.size()));
        if (middle != keyed_.end()) std::nth_element(keyed_.begin(), middle, keyed_.end(), before);
        std::sort(keyed_.begin(), middle, before);
        for (std::size_t i = 0; i < genes.size(); ++i) genes[i] = keyed_[i].gene;
    }

    void add_lacking(std::size_t room) {
        const std::size_t n_columns = cells_.token_of.size();
        has_.assign(n_columns, 0);
        for (std::size_t i = 0; i < nnz_; ++i) has_[static_cast<std::size_t>(cells_.columns[begin_ + i])] = 1;
        lacking_.clear();
        for (std::size_t column = 0; column < n_columns; ++column)
            if (!has_[column] && cells_.token_of[column] >= 0) lacking_.push_back({kLacking, static_cast<std::int32_t>(column)});
        fit(lacking_, room);
        kept_.insert(kept_.end(), lacking_.begin(), lacking_.end());
    }

    void measure(std::size_t cell) {
        divisor_ = plan_.totals.empty() ? 1.0 : plan_.totals[cell];
        if (rules_.of_kept) {
            divisor_ = 0.0;
            for (const Gene& gene : kept_) divisor_ += count(gene);
        }
        small_.start();
    }

    float own(std::uint32_t count) const noexcept {
        if (rules_.values == ProfileValues::log1p) return log_scaled(count, divisor_, rules_.scale);
        return rules_.values == ProfileValues::scaled ? scaled(count) : static_cast<float>(count);
    }

    // In float, as torch does it.
    float scaled(std::uint32_t count) const noexcept {
        if (divisor_ == 0.0) return 0.0F;
        return static_cast<float>(count) / static_cast<float>(divisor_) * static_cast<float>(rules_.scale);
    }

    // Says which genes carry loss, and which of those are hidden: by the smallest numbers.
    void mark() {
        loss_.assign(kept_.size(), 0);
        hidden_.assign(kept_.size(), 0);
        if (rules_.mask <= 0.0) return;
        const auto n_loss = static_cast<std::size_t>(rules_.mask * static_cast<double>(n_own_));
        const auto n_hidden = static_cast<std::size_t>(rules_.hidden * static_cast<double>(n_loss));
        if (n_loss == 0 && rules_.all_if_none) std::fill_n(loss_.begin(), n_own_, std::uint8_t{1});
        if (n_loss == 0) return;
        numbers_.resize(n_own_);
        for (std::size_t i = 0; i < n_own_; ++i) numbers_[i] = number(kept_[i], given_.mask, Purpose::mask);
        picker_.pick(numbers_, n_loss, loss_.data());
        picker_.pick(numbers_, n_hidden, hidden_.data());
    }

    void write(std::size_t cell) {
        const std::size_t from = static_cast<std::size_t>(out_.starts[cell]);
        const std::size_t end = static_cast<std::size_t>(out_.starts[cell + 1]);
        std::size_t n_tail = 0;
        for (std::size_t i = 0; i < plan_.n_tail; ++i) n_tail += plan_.tail_shown[cell * plan_.n_tail + i] != 0;
        if (from + kept_.size() + n_tail > end) throw std::invalid_argument("row " + std::to_string(cell) + " is too short for its genes");
        write_genes(from);
        std::size_t at = from + kept_.size();
        for (std::size_t i = cell * plan_.n_tail; i < (cell + 1) * plan_.n_tail; ++i)
            if (plan_.tail_shown[i]) put(at++, plan_.tail_tokens[i], plan_.tail_values[i]);
        out_.lengths[cell] = static_cast<std::int64_t>(at - from);
        for (; at < end; ++at) put(at, rules_.pad_token, rules_.pad_value);
    }

    // One array after the other: short loops, which the compiler makes fast.
    void write_genes(std::size_t from) {
        const std::size_t n = kept_.size();
        for (std::size_t i = 0; i < n; ++i) out_.genes[from + i] = token(kept_[i]);
        float* const values = out_.values + from;
        write_values(values);
        if (out_.target != nullptr) std::copy_n(values, n, out_.target + from);
        if (out_.mask != nullptr) std::copy_n(loss_.data(), n, out_.mask + from);
        if (out_.hidden != nullptr) std::copy_n(hidden_.data(), n, out_.hidden + from);
        if (rules_.mask <= 0.0) return;
        for (std::size_t i = 0; i < n; ++i) values[i] = hidden_[i] ? 0.0F : values[i];
    }

    void write_values(float* values) {
        std::fill(values + n_own_, values + kept_.size(), 0.0F);
        if (rules_.values == ProfileValues::given) {
            for (std::size_t i = 0; i < n_own_; ++i)
                values[i] = clipped(static_cast<float>(plan_.given[begin_ + kept_[i].place]), rules_.clip);
            return;
        }
        const std::uint32_t* const counts = cells_.counts.data() + begin_;
        const auto compute = [this](std::uint32_t count) { return clipped(own(count), rules_.clip); };
        for (std::size_t i = 0; i < n_own_; ++i) values[i] = small_.of(counts[kept_[i].place], compute);
    }

    void put(std::size_t at, std::int64_t token, float value) const noexcept {
        out_.genes[at] = token;
        out_.values[at] = value;
        if (out_.target != nullptr) out_.target[at] = value;
        if (out_.mask != nullptr) out_.mask[at] = 0;
        if (out_.hidden != nullptr) out_.hidden[at] = 0;
    }

    const TokenCells& cells_;
    const ProfileRules& rules_;
    const ProfilePlan& plan_;
    const ProfileNumbers& given_;
    const ProfileOut& out_;
    std::span<const std::uint64_t> mixed_;
    std::span<const std::uint32_t> ranks_;
    std::size_t begin_ = 0;
    std::size_t nnz_ = 0;
    std::size_t n_own_ = 0;
    std::uint64_t key_ = 0;
    double divisor_ = 1.0;
    SmallCounts small_;
    Picker picker_;
    std::vector<Gene> kept_;
    std::vector<Gene> lacking_;
    std::vector<Keyed> keyed_;
    std::vector<Gene> at_rank_;
    std::vector<std::uint64_t> bits_;
    std::vector<std::uint64_t> numbers_;
    std::vector<std::uint8_t> chosen_;
    std::vector<std::uint8_t> has_;
    std::vector<std::uint8_t> loss_;
    std::vector<std::uint8_t> hidden_;
};

// The place of each column among the tokens, equal ones by column; none where the columns come in that order already, so
// that no cell needs arranging.
std::vector<std::uint32_t> ranks_of(std::span<const std::int64_t> token_of) {
    if (std::is_sorted(token_of.begin(), token_of.end())) return {};
    std::vector<std::uint32_t> columns(token_of.size());
    std::iota(columns.begin(), columns.end(), 0U);
    std::stable_sort(columns.begin(), columns.end(), [&](std::uint32_t a, std::uint32_t b) { return token_of[a] < token_of[b]; });
    std::vector<std::uint32_t> ranks(columns.size());
    for (std::size_t rank = 0; rank < columns.size(); ++rank) ranks[columns[rank]] = static_cast<std::uint32_t>(rank);
    return ranks;
}

}  // namespace

void tokenise_profiles(const TokenCells& cells, const ProfileRules& rules, const ProfilePlan& plan, const ProfileNumbers& numbers,
                       const ProfileOut& out, std::size_t threads) {
    cells.check();
    const std::vector<std::uint64_t> mixed = mixed_tokens(cells.token_of);
    const bool ranked = rules.order == ProfileOrder::token || rules.order == ProfileOrder::count;
    const std::vector<std::uint32_t> ranks = ranked ? ranks_of(cells.token_of) : std::vector<std::uint32_t>{};
    run_pieces(workers_for(cells.columns.size(), cells.size(), threads, kLeastTokenised), cells.size(), kTokenPiece, [&] {
        return [maker = std::make_unique<ProfileMaker>(cells, rules, plan, numbers, out, mixed, ranks)](std::size_t begin, std::size_t end) {
            for (std::size_t cell = begin; cell < end; ++cell) maker->make(cell);
        };
    });
}

void tokenise_panel(const TokenCells& cells, const PanelRows& rows, std::size_t threads) {
    cells.check();
    for (const std::int64_t token : cells.token_of)
        if (token >= static_cast<std::int64_t>(rows.n_genes)) throw std::invalid_argument("a token is no place of the panel");
    for (const std::int32_t column : cells.columns)
        if (cells.token_of[static_cast<std::size_t>(column)] < 0) throw std::invalid_argument("a gene of a cell has no token");
    const std::size_t width = rows.n_genes + rows.n_tail;
    const std::uint64_t work = cells.columns.size() + cells.size() * width / 16;  // A zero is cheaper than a count.
    run_pieces(workers_for(work, cells.size(), threads, kLeastTokenised), cells.size(), kTokenPiece, [&] {
        return [&, small = std::make_unique<SmallCounts>()](std::size_t begin, std::size_t end) {
            for (std::size_t cell = begin; cell < end; ++cell) {
                float* const row = rows.out + cell * width;
                std::fill_n(row, rows.n_genes, 0.0F);
                const double total = rows.totals[cell];
                small->start();
                for (std::size_t i = cells.begin(cell); i < cells.begin(cell) + cells.nnz(cell); ++i) {
                    const float value = small->of(cells.counts[i], [&](std::uint32_t count) { return log_scaled(count, total, rows.scale); });
                    row[cells.token_of[static_cast<std::size_t>(cells.columns[i])]] = clipped(value, rows.clip);
                }
                std::copy_n(rows.tail.data() + cell * rows.n_tail, rows.n_tail, row + rows.n_genes);
            }
        };
    });
}

}  // namespace cellmill
