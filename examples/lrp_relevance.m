function R = lrp_relevance(W, acts, out, input_rule, low, high)
% LRP_RELEVANCE  Relevance of every layer of a dense network; z+ in hidden layers, w^2 at the input.
%
%   R = lrp_relevance(W, acts, out)                        w^2 at the input (the default)
%   R = lrp_relevance(W, acts, out, 'z+')                  z+ at the input as well
%   R = lrp_relevance(W, acts, out, 'zbox', low, high)     z-box, for inputs that lie in [low, high]
%
% Self-contained: MATLAB (R2016b or newer) and GNU Octave. pylrp.relevance computes the same numbers in Python;
% tests/test_octave.py holds the two against each other.
%
%   W     cell array, W{l} is (n_out x n_in): a row for each neuron of the next layer, a column for each input.
%   acts  cell array, acts{l} is the INPUT of layer l, (n_in x samples): acts{1} is the network's input x, acts{2}
%         the first hidden layer after its ReLU, and so on. acts{1} may be [] with w^2, which does not look at it.
%   out   (n_L x samples), where relevance starts: the network's output before the softmax, other classes set to 0.
%   R     cell array one longer than W: R{1} belongs to the input, R{l} to acts{l}, R{end} is out.
%
% With row j of W{l} for the receiving neuron and column i for the input it comes from:
%
%   z+    R_i = sum_j  a_i w+_ij / (sum_k a_k w+_kj)  R_j       (a >= 0, as after a ReLU)
%   w^2   R_i = sum_j  w_ij^2 / (sum_k w_kj^2)  R_j
%   zbox  R_i = sum_j  q_ij / (sum_k q_kj)  R_j     with q_ij = x_i w_ij - low w+_ij - high w-_ij
%
% (Bach et al., PLoS ONE 10(7), 2015; Montavon et al., Pattern Recognition 65, 2017.) The sum over k, the neurons
% BELOW j, runs along a row of W. A neuron whose denominator is 0 has nobody to hand its relevance to: it is dropped.

if nargin < 4
    input_rule = 'w2';
end
layers = numel(W);
if numel(acts) ~= layers
    error('lrp_relevance: %d weights, but activations for %d layers', layers, numel(acts));
end

R = cell(1, layers + 1);
R{layers + 1} = out;
for l = layers:-1:1
    check_shapes(l, W{l}, acts{l}, R{l + 1});
    if l > 1 || strcmp(input_rule, 'z+')
        R{l} = z_plus(W{l}, acts{l}, R{l + 1});
    elseif strcmp(input_rule, 'w2')
        R{l} = w_square(W{l}, R{l + 1});
    elseif strcmp(input_rule, 'zbox')
        R{l} = z_box(W{l}, acts{l}, R{l + 1}, low, high);
    else
        error('lrp_relevance: input rule is ''%s'', known are ''w2'', ''z+'' and ''zbox''', input_rule);
    end
end
end


function R = z_plus(W, a, R_above)
% Contributions a_i w_ij that are positive: a > 0 with w > 0, and a < 0 with w < 0 (none of these after a ReLU).
Wp = max(W, 0);  Wn = min(W, 0);
ap = max(a, 0);  an = min(a, 0);
s = share(R_above, Wp * ap + Wn * an);
R = ap .* (Wp' * s) + an .* (Wn' * s);
end


function R = w_square(W, R_above)
V = W .^ 2;
R = V' * share(R_above, sum(V, 2));     % sum(., 2): over the inputs of each neuron, not over the neurons
end


function R = z_box(W, x, R_above, low, high)
Wp = max(W, 0);  Wn = min(W, 0);
low = low + zeros(size(x));  high = high + zeros(size(x));
s = share(R_above, W * x - Wp * low - Wn * high);
R = x .* (W' * s) - low .* (Wp' * s) - high .* (Wn' * s);
end


function s = share(R_above, z)
% R ./ z, and 0 where z is 0: 0/0 would give a NaN that spreads to every input in the product with W'.
s = R_above ./ z;
s(repmat(z == 0, 1, size(s, 2) / size(z, 2))) = 0;
end


function check_shapes(l, W, a, R_above)
if size(R_above, 1) ~= size(W, 1)
    error('lrp_relevance: W{%d} is %dx%d, the relevance above has %d rows', l, size(W), size(R_above, 1));
end
if ~(l == 1 && isempty(a)) && ~isequal(size(a), [size(W, 2), size(R_above, 2)])
    error('lrp_relevance: W{%d} is %dx%d and there are %d samples, acts{%d} is %dx%d', ...
          l, size(W), size(R_above, 2), l, size(a));
end
end
