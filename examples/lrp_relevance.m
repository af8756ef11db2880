function [R, ledger] = lrp_relevance(W, acts, out, varargin)
% LRP_RELEVANCE  Relevance of every layer of a dense network; z+ in hidden layers, w^2 at the input.
%
%   R = lrp_relevance(W, acts, out)                        w^2 at the input (the default)
%   R = lrp_relevance(W, acts, out, 'z+')                  z+ at the input as well
%   R = lrp_relevance(W, acts, out, 'zbox', low, high)     z-box, for inputs that lie in [low, high]
%   [R, ledger] = lrp_relevance(W, acts, out, 'rules', rules, 'biases', b)
%
% Self-contained: MATLAB (R2016b or newer) and GNU Octave, no compiler. pylrp_relevance computes the same numbers in
% compiled code, pylrp.relevance in Python; tests/matlab/test_octave.py holds them against each other.
%
%   W     cell array, W{l} is (n_out x n_in): a row for each neuron of the next layer, a column for each input.
%   acts  cell array, acts{l} is the INPUT of layer l, (n_in x samples): acts{1} is the network's input x, acts{2}
%         the first hidden layer after its ReLU, and so on. [] where the layer's rule does not look at it (w^2, flat).
%   out   (n_L x samples), where relevance starts: the network's output before the softmax, other classes set to 0.
%   rules one rule for all layers or a cell array with a rule for each, from the input up: 'zero', 'epsilon' or
%         {'epsilon', 1e-6}, {'gamma', 0.25}, 'zplus', {'alphabeta', 2, 1}, 'wsquare', 'flat', {'zbox', low, high}.
%         Behind the numbers names and values: {'zplus', 'stabilizer', 0, 'bias', false}. The stabilizer is 1e-6 where
%         none is given; the first three forms above use 0.
%   b     cell array, b{l} has n_out entries or is []. Default: no biases.
%   R     cell array one longer than W: R{1} belongs to the input, R{l} to acts{l}, R{end} is out.
%   ledger  struct array, ledger(l): where layer l's relevance went, each (1 x samples):
%         incoming = outgoing + bias + stabilizer + dead + rounding
%
% With row j of W{l} for the receiving neuron and column i for the input it comes from:
%
%   z+    R_i = sum_j  a_i w+_ij / (sum_k a_k w+_kj)  R_j       (a >= 0, as after a ReLU)
%   w^2   R_i = sum_j  w_ij^2 / (sum_k w_kj^2)  R_j
%   zbox  R_i = sum_j  q_ij / (sum_k q_kj)  R_j     with q_ij = x_i w_ij - low w+_ij - high w-_ij
%
% and the others likewise: each rule is a list of groups of terms, see groups_of below. (Bach et al., PLoS ONE 10(7),
% 2015; Montavon et al., Pattern Recognition 65, 2017; LNCS 11700, chapter 10, 2019.) The sum over k, the neurons BELOW
% j, runs along a row of W. A neuron whose denominator is 0 has nobody to hand its relevance to: it is dropped.

layers = numel(W);
if numel(acts) ~= layers
    error('lrp_relevance: %d weights, but activations for %d layers', layers, numel(acts));
end
[rules, b] = settle(W, varargin);

R = cell(1, layers + 1);
R{layers + 1} = out;
pages = cell(1, layers);
for l = layers:-1:1
    groups = groups_of(rules{l});
    check_shapes(l, W{l}, acts{l}, R{l + 1}, b{l}, groups);
    [R{l}, pages{l}] = through(groups, W{l}, acts{l}, R{l + 1}, b{l});
end
ledger = [pages{:}];
end


function [below, page] = through(groups, W, a, R_above, b)
% z = sum of the terms + bias;  s = c R / (z + eps sign(z));  R_below = sum over the terms of x .* (rho(W)' * s)
below = 0;
none = zeros(1, size(R_above, 2));
bias = none;  stabilizer = none;  dead = none;
unserved = R_above;
for g = 1:numel(groups)
    group = groups{g};
    z = 0;
    V = cell(1, numel(group.terms));  x = V;
    for t = 1:numel(group.terms)
        term = group.terms{t};
        V{t} = weights(W, term{2});
        x{t} = part(a, term{1}, size(W, 2));
        z = z + term{3} * (V{t} * x{t});
    end
    z_b = bias_share(b, group.bias);
    z = z + z_b;
    R_group = group.factor * R_above;
    if group.sign ~= 0                              % serves outputs of this sign only
        plain = W * a + sum_or_zero(b);
        R_group = R_group .* (group.sign * plain > 0);
    end
    s = share(R_group, z + group.eps * (1 - 2 * (z < 0)));
    for t = 1:numel(group.terms)
        below = below + group.terms{t}{3} * (x{t} .* (V{t}' * s));
    end
    % The ledger: what does not arrive below.
    kept = R_group - z .* s;
    empty = repmat(z == 0, 1, size(s, 2) / size(z, 2));
    dead = dead + sum(kept .* empty, 1);
    if group.eps > 0, stabilizer = stabilizer + sum(kept .* ~empty, 1); end
    bias = bias + sum(z_b .* s, 1);
    unserved = unserved - R_group;
end
below = below + zeros(size(W, 2), size(R_above, 2));
dead = dead + sum(unserved, 1);
page = struct('incoming', sum(R_above, 1), 'outgoing', sum(below, 1), 'bias', bias, 'stabilizer', stabilizer, ...
              'dead', dead, 'rounding', sum(R_above, 1) - sum(below, 1) - bias - stabilizer - dead);
end


function groups = groups_of(rule)
% A rule as data: groups with a denominator each, of terms {part of the input, weights, sign}. Weights [p n] are
% p max(W, 0) + n min(W, 0).
g = 1 + rule.gamma;
switch rule.name
    case {'epsilon', 'zero'}
        groups = {group({{'input', [1 1], 1}}, [1 1], rule.stabilizer)};
    case 'zplus'        % a > 0 with w > 0, and a < 0 with w < 0 (none of these after a ReLU)
        groups = {group({{'positive', [1 0], 1}, {'negative', [0 1], 1}}, [1 0], rule.stabilizer)};
    case 'alphabeta'
        groups = {group({{'positive', [1 0], 1}, {'negative', [0 1], 1}}, [1 0], rule.stabilizer, rule.alpha)};
        if rule.beta > 0
            groups{2} = group({{'positive', [0 1], 1}, {'negative', [1 0], 1}}, [0 1], rule.stabilizer, -rule.beta);
        end
    case 'gamma'        % contributions of the output's own sign count 1 + gamma times
        groups = {group({{'positive', [g 1], 1}, {'negative', [1 g], 1}}, [g 1], rule.stabilizer, 1, 1), ...
                  group({{'positive', [1 g], 1}, {'negative', [g 1], 1}}, [1 g], rule.stabilizer, 1, -1)};
    case 'wsquare'
        groups = {group({{'one', 'square', 1}}, 'square', rule.stabilizer)};
    case 'flat'
        groups = {group({{'one', 'one', 1}}, [0 0], rule.stabilizer)};
    case 'zbox'
        groups = {group({{'input', [1 1], 1}, {rule.low, [1 0], -1}, {rule.high, [0 1], -1}}, [0 0], rule.stabilizer)};
end
if ~rule.bias
    for k = 1:numel(groups), groups{k}.bias = [0 0]; end
end
end


function made = group(terms, bias, eps, factor, sign)
if nargin < 4, factor = 1; end
if nargin < 5, sign = 0; end
made = struct('terms', {terms}, 'bias', bias, 'eps', eps, 'factor', factor, 'sign', sign);
end


function V = weights(W, map)
if ischar(map)
    if strcmp(map, 'square'), V = W .^ 2; else, V = ones(size(W), class(W)); end
elseif isequal(map, [1 1])
    V = W;
elseif isequal(map, [1 0])
    V = max(W, 0);
elseif isequal(map, [0 1])
    V = min(W, 0);
else
    V = map(1) * max(W, 0) + map(2) * min(W, 0);
end
end


function x = part(a, name, n)
if ~ischar(name)                                    % a bound of the z-box, a number or a column
    x = repmat(cast(name(:), class(a)), n / numel(name), size(a, 2));
    return
end
switch name
    case 'input',    x = a;
    case 'positive', x = max(a, 0);
    case 'negative', x = min(a, 0);
    otherwise,       x = ones(n, 1);                % the same for all samples: one column of z is enough
end
end


function z = bias_share(b, map)
z = 0;
if isempty(b), return, end
if ischar(map), z = b(:) .^ 2; else, z = map(1) * max(b(:), 0) + map(2) * min(b(:), 0); end
end


function z = sum_or_zero(b)
z = 0;
if ~isempty(b), z = b(:); end
end


function s = share(R_above, z)
% R ./ z, and 0 where z is 0: 0/0 would give a NaN that spreads to every input in the product with W'.
s = R_above ./ z;
s(repmat(z == 0, 1, size(s, 2) / size(z, 2))) = 0;
end


function [rules, b] = settle(W, given)
layers = numel(W);
rules = [{{'wsquare', 'stabilizer', 0}}, repmat({{'zplus', 'stabilizer', 0}}, 1, layers - 1)];
b = cell(1, layers);
if ~isempty(given) && ~any(strcmp(given{1}, {'rules', 'biases'}))
    known = {'w2', 'z+', 'zbox'};
    if ~any(strcmp(given{1}, known))
        error('lrp_relevance: input rule is ''%s'', known are ''w2'', ''z+'' and ''zbox''', given{1});
    end
    if strcmp(given{1}, 'z+'), rules{1} = {'zplus', 'stabilizer', 0}; end
    if strcmp(given{1}, 'zbox'), rules{1} = {'zbox', given{2:3}, 'stabilizer', 0}; end
    given = {};
end
for i = 1:2:numel(given) - 1
    switch given{i}
        case 'biases', b = given{i + 1};
        case 'rules',  rules = given{i + 1};
        otherwise,     error('lrp_relevance: no option ''%s'': there are rules and biases', given{i});
    end
end
if isempty(rules), error('lrp_relevance: rules is empty'); end
if ischar(rules) || (iscell(rules) && ischar(rules{1}) && numel(rules) > 1 && ~is_rule_name(rules{2}))
    rules = repmat({rules}, 1, layers);             % one for all
end
if numel(rules) ~= layers || numel(b) ~= layers
    error('lrp_relevance: %d weights, %d rules, %d biases', layers, numel(rules), numel(b));
end
for l = 1:layers
    rules{l} = settle_rule(rules{l}, l);
end
end


function yes = is_rule_name(value)
names = {'zero', 'epsilon', 'gamma', 'zplus', 'alphabeta', 'wsquare', 'flat', 'zbox'};
yes = iscell(value) || (ischar(value) && any(strcmp(value, names)));
end


function rule = settle_rule(given, l)
if ischar(given), given = {given}; end
rule = struct('name', given{1}, 'stabilizer', 1e-6, 'gamma', 0.25, 'alpha', 2, 'beta', 1, 'low', 0, 'high', 1, ...
              'bias', true);
switch rule.name
    case 'epsilon',   numbers = {'stabilizer'};
    case 'zero',      numbers = {};  rule.stabilizer = 0;
    case 'gamma',     numbers = {'gamma'};
    case 'alphabeta', numbers = {'alpha', 'beta'};
    case 'zbox',      numbers = {'low', 'high'};
    case {'zplus', 'wsquare', 'flat'}, numbers = {};
    otherwise
        error(['lrp_relevance: rule %d is ''%s''; there are zero, epsilon, gamma, zplus, alphabeta, wsquare, flat ' ...
               'and zbox'], l, rule.name);
end
i = 2;
while i <= numel(given)
    if ischar(given{i})                             % a name and its value
        if i == numel(given), error('lrp_relevance: rule %d: ''%s'' has no value', l, given{i}); end
        name = given{i};
        if strcmp(name, 'epsilon'), name = 'stabilizer'; end
        value = given{i + 1};  i = i + 2;
    elseif i - 1 > numel(numbers)
        error('lrp_relevance: rule %d: ''%s'' takes %d numbers', l, rule.name, numel(numbers));
    else                                            % the rule's numbers, in order
        name = numbers{i - 1};  value = given{i};  i = i + 1;
    end
    if ~isfield(rule, name), error('lrp_relevance: rule %d has no parameter ''%s''', l, name); end
    rule.(name) = value;
end
if abs(rule.alpha - rule.beta - 1) > 1e-9
    error('lrp_relevance: rule %d: alpha - beta must be 1', l);
end
end


function check_shapes(l, W, a, R_above, b, groups)
if size(R_above, 1) ~= size(W, 1)
    error('lrp_relevance: W{%d} is %dx%d, the relevance above has %d rows', l, size(W), size(R_above, 1));
end
reads = any(cellfun(@(g) any(cellfun(@(t) ~ischar(t{1}) || ~strcmp(t{1}, 'one'), g.terms)), groups));
if (reads || ~isempty(a)) && ~isequal(size(a), [size(W, 2), size(R_above, 2)])
    error('lrp_relevance: W{%d} is %dx%d and there are %d samples, acts{%d} is %dx%d', ...
          l, size(W), size(R_above, 2), l, size(a));
end
if ~isempty(b) && numel(b) ~= size(W, 1)
    error('lrp_relevance: W{%d} is %dx%d, its bias has %d entries', l, size(W), numel(b));
end
end
