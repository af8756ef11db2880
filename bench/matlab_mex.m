% MATLAB_MEX  pylrp_relevance against the vectorised lrp_relevance.m and against the equations as loops, alternating.
%
%   make mex && octave-cli bench/matlab_mex.m        from the repository; `rounds` below; needs 4 GB of memory
%
% Prints medians and ratios. The loops run on a few digits and are scaled up to all: their time grows with the number of
% samples. Results are compared before anything is timed. Which BLAS Octave multiplies with decides much about the
% vectorised code: the last line names it.

rounds = 3;
here = fileparts(mfilename('fullpath'));
addpath(fullfile(here, '..', 'build', 'matlab'));

function R = loops(W, acts, out)
% z+ above, w^2 at the input, entry by entry; the sum over k once for each neuron j.
R = zeros(size(W{1}, 2), size(out, 2));
for s = 1:size(out, 2)
    a = acts{2}(:, s);
    R_hidden = zeros(size(a));
    for j = 1:size(W{2}, 1)
        z = 0;
        for k = 1:numel(a), z = z + a(k) * max(W{2}(j, k), 0); end
        if z ~= 0
            for i = 1:numel(a), R_hidden(i) = R_hidden(i) + a(i) * max(W{2}(j, i), 0) / z * out(j, s); end
        end
    end
    for j = 1:size(W{1}, 1)
        z = 0;
        for k = 1:size(W{1}, 2), z = z + W{1}(j, k) ^ 2; end
        if z ~= 0
            for i = 1:size(W{1}, 2), R(i, s) = R(i, s) + W{1}(j, i) ^ 2 / z * R_hidden(j); end
        end
    end
end
end

function [W, acts, out] = network(sizes, samples, kind)
W = cell(1, numel(sizes) - 1);  acts = {cast(max(randn(sizes(1), samples), 0), kind)};
for l = 1:numel(W)
    W{l} = randn(sizes(l + 1), sizes(l), kind) / cast(sqrt(sizes(l)), kind);
    acts{l + 1} = max(W{l} * acts{l}, 0);
end
logits = W{end} * acts{end - 1};
acts = acts(1:end - 1);
out = logits .* (logits == max(logits, [], 1));
end

function [mine, theirs] = alternate(W, acts, out, rounds)
R = pylrp_relevance(W, acts, out);
all = lrp_relevance(W, acts, out);
assert(max(abs(R(:) - all{1}(:))) <= 1e3 * eps(class(R)) * max(abs(R(:))));
mine = zeros(1, rounds);  theirs = zeros(1, rounds);
for r = 1:rounds
    tic; R = pylrp_relevance(W, acts, out); mine(r) = toc;
    tic; all = lrp_relevance(W, acts, out); theirs(r) = toc;
end
mine = median(mine);  theirs = median(theirs);
end

for kind = {'double', 'single'}
    kind = kind{1};
    rand('twister', 1); randn('twister', 1);
    [W, acts, out] = network([784 300 10], 300, kind);
    [mine, theirs] = alternate(W, acts, out, 5 * rounds);
    few = 3;
    some = {acts{1}(:, 1:few), acts{2}(:, 1:few)};
    tic; R = loops(W, some, out(:, 1:few)); slow = toc * size(out, 2) / few;
    assert(max(max(abs(R - pylrp_relevance(W, some, out(:, 1:few))))) <= 1e3 * eps(kind) * max(abs(R(:))));
    printf('%s 784-300-10, 300 samples: MEX %.2f ms, vectorised %.2f ms (%.1f x), loops %.1f s (%.0f x)\n', ...
           kind, 1e3 * mine, 1e3 * theirs, theirs / mine, slow, slow / mine);
    [W, acts, out] = network([25088 4096 4096 1000], 1, kind);
    [mine, theirs] = alternate(W, acts, out, rounds);
    printf('%s 25088-4096-4096-1000, 1 sample: MEX %.0f ms, vectorised %.0f ms (%.1f x)\n', ...
           kind, 1e3 * mine, 1e3 * theirs, theirs / mine);
    clear W acts out
end
printf('%s\n', version('-blas'));
