/* 2x2 max-pooling, with or without ReLU, forward and backward, over images in channels-last layout (N, H, W, C).

   The results are those of PyTorch's operators: of equal values the first is the maximum, and NaN is propagated. PyTorch
   needs an int64 for every maximum, zeros for every pixel, and further passes for ReLU. Here one pass writes the maxima
   and their positions among the four pixels, a byte each, and one pass writes the gradients. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define NONE 4 /* ReLU gave 0: there is no gradient */

/* Compiled for several vector units; the one of the processor that it runs on is used. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define CLONED __attribute__((target_clones("arch=skylake-avx512", "avx2", "default")))
#else
#define CLONED
#endif

static inline float from_float(float value) { return value; }

static inline float from_bfloat16(uint16_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

#define ROWS(TYPE, WIDE)                                                                                              \
    /* Two rows of pixels to one of maxima. */                                                                        \
    CLONED static void forward_##TYPE(const TYPE *restrict upper, const TYPE *restrict lower, TYPE *restrict maxima,  \
                                      uint8_t *restrict which, int64_t width, int64_t channels, int relu) {           \
        for (int64_t x = 0; x < width; x++) {                                                                         \
            const int64_t left = 2 * x * channels, right = left + channels, out = x * channels;                       \
            for (int64_t c = 0; c < channels; c++) {                                                                  \
                TYPE best = upper[left + c];                                                                          \
                uint8_t place = 0;                                                                                    \
                TYPE value = upper[right + c];                                                                        \
                int better = WIDE(value) > WIDE(best) || WIDE(value) != WIDE(value);                                  \
                best = better ? value : best, place = better ? 1 : place;                                             \
                value = lower[left + c];                                                                              \
                better = WIDE(value) > WIDE(best) || WIDE(value) != WIDE(value);                                      \
                best = better ? value : best, place = better ? 2 : place;                                             \
                value = lower[right + c];                                                                             \
                better = WIDE(value) > WIDE(best) || WIDE(value) != WIDE(value);                                      \
                best = better ? value : best, place = better ? 3 : place;                                             \
                int off = relu && WIDE(best) <= 0;                                                                    \
                maxima[out + c] = off ? 0 : best;                                                                     \
                which[out + c] = off ? NONE : place;                                                                  \
            }                                                                                                         \
        }                                                                                                             \
    }                                                                                                                 \
    /* One row of gradients to two. */                                                                                \
    CLONED static void backward_##TYPE(const TYPE *restrict gradients, const uint8_t *restrict which,                 \
                                       TYPE *restrict upper, TYPE *restrict lower, int64_t width, int64_t channels) { \
        for (int64_t x = 0; x < width; x++) {                                                                         \
            const int64_t left = 2 * x * channels, right = left + channels, in = x * channels;                        \
            for (int64_t c = 0; c < channels; c++) {                                                                  \
                const TYPE gradient = gradients[in + c];                                                              \
                const uint8_t place = which[in + c];                                                                  \
                upper[left + c] = place == 0 ? gradient : 0;                                                          \
                upper[right + c] = place == 1 ? gradient : 0;                                                         \
                lower[left + c] = place == 2 ? gradient : 0;                                                          \
                lower[right + c] = place == 3 ? gradient : 0;                                                         \
            }                                                                                                         \
        }                                                                                                             \
    }

ROWS(float, from_float)
ROWS(uint16_t, from_bfloat16)

/* The arrays of a pass, and their sizes: features or their gradients, maxima or their gradients, and positions. */
typedef struct {
    unsigned long long wide, pooled, positions;
    int64_t images, height, width, channels, rows, row, pooled_row;
    int bytes, threads, relu;
} Pass;

static int parse(PyObject *arguments, Pass *pass) {
    if (!PyArg_ParseTuple(arguments, "KKKLLLLiip", &pass->wide, &pass->pooled, &pass->positions, &pass->images,
                          &pass->height, &pass->width, &pass->channels, &pass->bytes, &pass->threads, &pass->relu))
        return 0;
    pass->rows = pass->height / 2;
    pass->row = pass->width * pass->channels * pass->bytes;
    pass->pooled_row = pass->width / 2 * pass->channels;
    return 1;
}

/* For row i of the maxima of all images: the upper one of its two rows of pixels, itself, and its positions. */
static char *wide_row(const Pass *pass, int64_t i) {
    return (char *)(uintptr_t)pass->wide + (i / pass->rows * pass->height + i % pass->rows * 2) * pass->row;
}
static char *pooled_row(const Pass *pass, int64_t i) {
    return (char *)(uintptr_t)pass->pooled + i * pass->pooled_row * pass->bytes;
}
static uint8_t *positions_row(const Pass *pass, int64_t i) {
    return (uint8_t *)(uintptr_t)pass->positions + i * pass->pooled_row;
}

static PyObject *forward(PyObject *module, PyObject *arguments) {
    Pass pass;
    if (!parse(arguments, &pass))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
#pragma omp parallel for num_threads(pass.threads)
    for (int64_t i = 0; i < pass.images * pass.rows; i++) {
        const char *upper = wide_row(&pass, i), *lower = upper + pass.row;
        char *out = pooled_row(&pass, i);
        if (pass.bytes == 4)
            forward_float((const float *)upper, (const float *)lower, (float *)out, positions_row(&pass, i),
                          pass.width / 2, pass.channels, pass.relu);
        else
            forward_uint16_t((const uint16_t *)upper, (const uint16_t *)lower, (uint16_t *)out, positions_row(&pass, i),
                             pass.width / 2, pass.channels, pass.relu);
    }
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *backward(PyObject *module, PyObject *arguments) {
    Pass pass;
    if (!parse(arguments, &pass))
        return NULL;
    const int64_t used = pass.width / 2 * 2 * pass.channels * pass.bytes;
    Py_BEGIN_ALLOW_THREADS
#pragma omp parallel for num_threads(pass.threads)
    for (int64_t i = 0; i < pass.images * pass.rows; i++) {
        char *upper = wide_row(&pass, i), *lower = upper + pass.row;
        const char *in = pooled_row(&pass, i);
        if (pass.bytes == 4)
            backward_float((const float *)in, positions_row(&pass, i), (float *)upper, (float *)lower, pass.width / 2,
                           pass.channels);
        else
            backward_uint16_t((const uint16_t *)in, positions_row(&pass, i), (uint16_t *)upper, (uint16_t *)lower,
                              pass.width / 2, pass.channels);
        memset(upper + used, 0, pass.row - used); /* the column that pooling drops, if any */
        memset(lower + used, 0, pass.row - used);
        if (pass.height % 2 && i % pass.rows == pass.rows - 1)
            memset(lower + pass.row, 0, pass.row);
    }
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"forward", forward, METH_VARARGS, NULL},
                                {"backward", backward, METH_VARARGS, NULL},
                                {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_pooling", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__pooling(void) { return PyModule_Create(&definition); }
