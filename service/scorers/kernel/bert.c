// A BERT ranker in int8: weights with a scale per output channel, activations with a scale and a
// lowest value per token. A token's numbers depend on its own pair alone, bit for bit: dot products
// are exact integers, and every float is computed in the same order wherever it stands.
//
// Sizes: H hidden, F feed-forward, T tokens of a call. H and F are multiples of 16, a head's width
// too. Sums stay below 2^31: 255 * 127 * F, F at most 65,536.

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "attention.h"
#include "linear.h"

enum { FEED_FORWARD_ROWS = 64 }; // tokens whose F activations stay in the second-level cache

typedef struct {
    const float *weight, *bias; // [H]
} Norm;

typedef struct {
    Linear query, key_value, attended, up, down;
    Norm attention_norm, output_norm;
} Layer;

typedef struct {
    int64_t hidden, heads, feed_forward, layer_count, vocabulary, positions;
    const int8_t *words;       // [vocabulary, H]
    const float *word_scales;  // [vocabulary]
    const float *position_rows; // [positions, H]
    const float *segment_rows; // [2, H]
    Norm embedding_norm;
    const Layer *layers;
    Linear pooler;
    const float *classifier; // [H]
    float classifier_bias, norm_epsilon;
} Model;

typedef struct {
    float *x, *y, *attended; // [T, H]
    float *queries;          // [T, H]
    float *keys_values;      // [T, 2H]
    float *up;               // [FEED_FORWARD_ROWS, F]
    float *keys_across;      // [head width, T rounded up]
    float *weights;          // attention's, [QUERY_ROWS, T rounded up]
    Quantised activations;
} Scratch;

INLINE void normalise(float *x, int64_t n, Norm norm, float epsilon) {
    Floats sum = all(0), squares = all(0);
    for (int64_t i = 0; i < n; i += LANES) sum = add(sum, load(x + i));
    const Floats mean = all(sum_of(sum) / (float)n);
    for (int64_t i = 0; i < n; i += LANES) {
        Floats centre = sub(load(x + i), mean);
        squares = mul_add(centre, centre, squares);
    }
    const Floats inverse = all(1 / sqrtf(sum_of(squares) / (float)n + epsilon));
    for (int64_t i = 0; i < n; i += LANES) {
        Floats value = mul(sub(load(x + i), mean), inverse);
        store(x + i, mul_add(value, load(norm.weight + i), load(norm.bias + i)));
    }
}

// x [rows, n] = norm(x + y)
static void add_and_normalise(
    float *x, const float *y, int64_t rows, int64_t n, Norm norm, float epsilon
) {
    for (int64_t row = 0; row < rows; row++, x += n, y += n) {
        for (int64_t i = 0; i < n; i += LANES) store(x + i, add(load(x + i), load(y + i)));
        normalise(x, n, norm, epsilon);
    }
}

// Self-attention of one pair, for the first `rows` of its tokens.
static void attend(
    const Model *model, const Scratch *scratch, const float *queries, const float *keys_values,
    int64_t length, int64_t rows, float *out
) {
    const int64_t hidden = model->hidden, width = hidden / model->heads;
    const int64_t padded = whole_vectors(length);
    for (int64_t head = 0; head < hidden; head += width) {
        const float *keys = keys_values + head, *values = keys + hidden;
        for (int64_t key = 0; key < length; key++)
            for (int64_t i = 0; i < width; i++)
                scratch->keys_across[i * padded + key] = keys[key * 2 * hidden + i];
        for (int64_t i = 0; i < width; i++)
            for (int64_t key = length; key < padded; key++)
                scratch->keys_across[i * padded + key] = 0;
        int64_t row = 0;
#define ATTEND(height) \
    attend_rows( \
        height, queries + row * hidden + head, values, scratch->keys_across, length, hidden, \
        width, scratch->weights, out + row * hidden + head \
    )
        for (; row + QUERY_ROWS <= rows; row += QUERY_ROWS) ATTEND(QUERY_ROWS);
        switch (rows - row) {
            case 5: ATTEND(5); break;
            case 4: ATTEND(4); break;
            case 3: ATTEND(3); break;
            case 2: ATTEND(2); break;
            case 1: ATTEND(1); break;
        }
#undef ATTEND
    }
}

static void embed(
    const Model *model, const int32_t *ids, int64_t length, int64_t first_segment, float *x
) {
    const int64_t hidden = model->hidden;
    for (int64_t at = 0; at < length; at++, x += hidden) {
        const int8_t *word = model->words + ids[at] * hidden;
        const Floats scale = all(model->word_scales[ids[at]]);
        const float *position = model->position_rows + at * hidden;
        const float *segment = model->segment_rows + (at >= first_segment) * hidden;
        for (int64_t i = 0; i < hidden; i += LANES) {
            Floats place = add(load(position + i), load(segment + i));
            store(x + i, mul_add(load_int8(word + i), scale, place));
        }
        normalise(x, hidden, model->embedding_norm, model->norm_epsilon);
    }
}

static void feed_forward(const Model *model, const Layer *layer, const Scratch *s, int64_t rows) {
    const int64_t hidden = model->hidden;
    for (int64_t row = 0; row < rows; row += FEED_FORWARD_ROWS) {
        const int64_t some = rows - row < FEED_FORWARD_ROWS ? rows - row : FEED_FORWARD_ROWS;
        quantise(s->x + row * hidden, some, hidden, 0, s->activations);
        apply(&layer->up, s->activations, some, s->up);
        quantise(s->up, some, model->feed_forward, 1, s->activations);
        apply(&layer->down, s->activations, some, s->y + row * hidden);
    }
    add_and_normalise(s->x, s->y, rows, hidden, layer->output_norm, model->norm_epsilon);
}

// One layer over all pairs of a call. Of the last one only each pair's first token is needed, so
// its rows are gathered in front: x becomes [pairs, H].
static void run_layer(
    const Model *model, const Layer *layer, int is_last, const int32_t *lengths, int64_t pairs,
    int64_t tokens, const Scratch *s
) {
    const int64_t hidden = model->hidden;
    const int64_t rows = is_last ? pairs : tokens;
    quantise(s->x, tokens, hidden, 0, s->activations);
    apply(&layer->key_value, s->activations, tokens, s->keys_values);
    if (!is_last) apply(&layer->query, s->activations, tokens, s->queries);
    for (int64_t pair = 0, at = 0; pair < pairs; at += lengths[pair++]) {
        const int64_t row = is_last ? pair : at;
        if (is_last) {
            apply(&layer->query, from_row(s->activations, at, hidden), 1, s->queries + row * hidden);
            memmove(s->x + row * hidden, s->x + at * hidden, (size_t)hidden * sizeof(float));
        }
        attend(
            model, s, s->queries + row * hidden, s->keys_values + at * 2 * hidden, lengths[pair],
            is_last ? 1 : lengths[pair], s->attended + row * hidden
        );
    }
    quantise(s->attended, rows, hidden, 0, s->activations);
    apply(&layer->attended, s->activations, rows, s->y);
    add_and_normalise(s->x, s->y, rows, hidden, layer->attention_norm, model->norm_epsilon);
    feed_forward(model, layer, s, rows);
}

// Lays the scratch out from `base` and returns the bytes it takes.
static size_t lay_out(const Model *model, int64_t tokens, char *base, Scratch *s) {
    const int64_t hidden = model->hidden, feed_forward = model->feed_forward;
    const int64_t rows = tokens < FEED_FORWARD_ROWS ? FEED_FORWARD_ROWS : tokens;
    const int64_t wide = FEED_FORWARD_ROWS * feed_forward;
    const int64_t padded = whole_vectors(tokens);
    size_t used = 0;
#define TAKE(field, count) \
    (field) = (void *)((uintptr_t)base + used), used += ((size_t)(count) * sizeof *(field) + 63) / 64 * 64
    TAKE(s->x, tokens * hidden);
    TAKE(s->y, tokens * hidden);
    TAKE(s->attended, tokens * hidden);
    TAKE(s->queries, tokens * hidden);
    TAKE(s->keys_values, tokens * 2 * hidden);
    TAKE(s->up, wide);
    TAKE(s->keys_across, hidden / model->heads * padded);
    TAKE(s->weights, QUERY_ROWS * padded);
    TAKE(s->activations.values, tokens * hidden > wide ? tokens * hidden : wide);
    TAKE(s->activations.scales, rows);
    TAKE(s->activations.lows, rows);
#undef TAKE
    return used;
}

// Raised whenever a structure or a function's arguments change.
int bert_abi(void) { return 1; }

int bert_runs_here(void) { return cpu_has_it(); }

// The layout of a Linear's weights.
int64_t bert_panel(void) { return PANEL; }
int64_t bert_group(void) { return GROUP; }
int64_t bert_weight_bytes(void) { return sizeof(Weight); }

// Bytes of scratch, aligned to 64, for a call of so many tokens.
int64_t bert_scratch_bytes(const Model *model, int64_t tokens) {
    Scratch scratch;
    return (int64_t)lay_out(model, tokens, NULL, &scratch);
}

// Scores pairs whose ids stand one after another. Returns 0, or 1 for ids or lengths that the
// model does not have; nothing is written then.
int bert_score(
    const Model *model, const int32_t *ids, const int32_t *lengths, const int32_t *first_segments,
    int64_t pairs, char *scratch_bytes, float *scores
) {
    int64_t tokens = 0;
    for (int64_t pair = 0; pair < pairs; tokens += lengths[pair++])
        if (lengths[pair] < 1 || lengths[pair] > model->positions) return 1;
    for (int64_t at = 0; at < tokens; at++)
        if (ids[at] < 0 || ids[at] >= model->vocabulary) return 1;
    Scratch s;
    lay_out(model, tokens, scratch_bytes, &s);
    for (int64_t pair = 0, at = 0; pair < pairs; at += lengths[pair++])
        embed(model, ids + at, lengths[pair], first_segments[pair], s.x + at * model->hidden);
    for (int64_t i = 0; i < model->layer_count; i++)
        run_layer(
            model, model->layers + i, i == model->layer_count - 1, lengths, pairs, tokens, &s
        );
    quantise(s.x, pairs, model->hidden, 0, s.activations);
    apply(&model->pooler, s.activations, pairs, s.y);
    for (int64_t pair = 0; pair < pairs; pair++) {
        float score = model->classifier_bias;
        for (int64_t i = 0; i < model->hidden; i++)
            score += tanhf(s.y[pair * model->hidden + i]) * model->classifier[i];
        scores[pair] = score;
    }
    return 0;
}
