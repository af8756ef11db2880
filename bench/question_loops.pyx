# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The question's two equations as the question has them: plain loops over neurons, sample by sample, on one thread.

float32 and float64. The loops run along the rows of W, nothing else is tuned. ``loops.py`` compiles this file on demand,
``peers.py`` times it.
"""

ctypedef fused real:
    float
    double


def z_plus(const real[:, ::1] W, const real[:, ::1] a, const real[:, ::1] R, real[:, ::1] below):
    """R_i = sum_j a_i w+_ij / (sum_k a_k w+_kj) R_j; ``below`` receives R_i."""
    cdef Py_ssize_t n, i, j
    cdef real z, s
    with nogil:
        for n in range(a.shape[0]):
            for i in range(W.shape[1]):
                below[n, i] = 0
            for j in range(W.shape[0]):
                z = 0
                for i in range(W.shape[1]):
                    if W[j, i] > 0:
                        z += a[n, i] * W[j, i]
                s = R[n, j] / z if z > 0 else 0
                for i in range(W.shape[1]):
                    if W[j, i] > 0:
                        below[n, i] += a[n, i] * W[j, i] * s


def w_square(const real[:, ::1] W, const real[:, ::1] R, real[:, ::1] below):
    """R_i = sum_j w_ij^2 / (sum_k w_kj^2) R_j; ``below`` receives R_i."""
    cdef Py_ssize_t n, i, j
    cdef real z, s
    with nogil:
        for n in range(R.shape[0]):
            for i in range(W.shape[1]):
                below[n, i] = 0
            for j in range(W.shape[0]):
                z = 0
                for i in range(W.shape[1]):
                    z += W[j, i] * W[j, i]
                s = R[n, j] / z if z > 0 else 0
                for i in range(W.shape[1]):
                    below[n, i] += W[j, i] * W[j, i] * s
