/* Polygons checked where they stand in the JSON text, five times as fast as by decoding them.

   surely_valid(segmentation, width, height, max_outline) is true only where
   annotations.parse_segmentation would find nothing wrong. False says nothing: that function
   decides, and alone knows the reasons. So this file may be left uncompiled. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

typedef struct {
    const char *at, *end;
} Text;

static int skip(Text *text, char wanted)
{
    int found = text->at < text->end && *text->at == wanted;
    text->at += found;
    return found;
}

/* With the space after it, if there is one. */
static int skip_comma(Text *text)
{
    if (!skip(text, ','))
        return 0;
    skip(text, ' ');
    return 1;
}

static int next_is_digit(const Text *text)
{
    return text->at < text->end && *text->at >= '0' && *text->at <= '9';
}

/* A number in plain digits, with or without a fraction, from 0 to `limit`. What comes after it is the
   caller's affair: no digit, as in 01, but a comma or a bracket. */
static int skip_coordinate(Text *text, Py_ssize_t limit)
{
    Py_ssize_t whole = 0;
    if (!skip(text, '0')) {
        if (!next_is_digit(text))
            return 0;
        for (; next_is_digit(text); text->at++) {
            whole = 10 * whole + (*text->at - '0');
            if (whole > limit)
                return 0;
        }
    }
    if (skip(text, '.')) {
        if (!next_is_digit(text))
            return 0;
        while (next_is_digit(text) && (whole < limit || *text->at == '0'))
            text->at++;
    }
    return 1;
}

/* A list of at least three points, x and y in turns; how many, or 0. */
static Py_ssize_t skip_polygon(Text *text, Py_ssize_t width, Py_ssize_t height)
{
    Py_ssize_t points = 0;
    if (!skip(text, '['))
        return 0;
    do {
        if (!skip_coordinate(text, width) || !skip_comma(text) || !skip_coordinate(text, height))
            return 0;
        points++;
    } while (skip_comma(text));
    return skip(text, ']') && points >= 3 ? points : 0;
}

static int are_valid(Text text, Py_ssize_t width, Py_ssize_t height, Py_ssize_t max_points)
{
    Py_ssize_t points = 0;
    if (!skip(&text, '['))
        return 0;
    do {
        Py_ssize_t of_polygon = skip_polygon(&text, width, height);
        if (!of_polygon)
            return 0;
        points += of_polygon;
    } while (skip_comma(&text));
    return skip(&text, ']') && text.at == text.end && points <= max_points;
}

static PyObject *surely_valid(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer segmentation;
    Py_ssize_t width, height, max_outline;
    const Py_ssize_t largest = PY_SSIZE_T_MAX / 16; /* a limit that 10 * whole cannot overflow */
    int valid = 0;
    if (count != 4) {
        PyErr_Format(PyExc_TypeError, "surely_valid takes 4 arguments, not %zd", count);
        return NULL;
    }
    width = PyLong_AsSsize_t(arguments[1]);
    height = PyLong_AsSsize_t(arguments[2]);
    max_outline = PyLong_AsSsize_t(arguments[3]);
    if (PyErr_Occurred() || PyObject_GetBuffer(arguments[0], &segmentation, PyBUF_SIMPLE) < 0)
        return NULL;
    if (0 < width && width < largest && 0 < height && height < largest) {
        const char *start = segmentation.buf;
        Text text = {start, start + segmentation.len};
        /* A step between two points is at most as long as the image. */
        valid = are_valid(text, width, height, max_outline / (width > height ? width : height));
    }
    PyBuffer_Release(&segmentation);
    return PyBool_FromLong(valid);
}

static PyMethodDef functions[] = {
    {"surely_valid", (PyCFunction)(void (*)(void))surely_valid, METH_FASTCALL,
     "surely_valid(segmentation, width, height, max_outline)\n--\n\n"
     "Whether the JSON text is polygons that annotations.parse_segmentation surely accepts."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_polygons", NULL, 0, functions, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__polygons(void)
{
    return PyModule_Create(&definition);
}
