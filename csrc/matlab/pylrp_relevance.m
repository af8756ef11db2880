function [R, layers, ledger] = pylrp_relevance(W, acts, out, varargin)
% PYLRP_RELEVANCE  Relevance of a dense network's input: layer-wise relevance propagation, compiled.
%
%   R = pylrp_relevance(W, acts, out)
%   R = pylrp_relevance(nn, x, out)
%   [R, layers, ledger] = pylrp_relevance(..., 'rules', rules, 'biases', b, 'convention', name, 'threads', n)
%
% Columns are samples. All arrays are double or all are single, and R is of that class.
%
%   W       cell array, W{l} is (n_out x n_in): a row for each neuron of the next layer. Or a struct with nn.layers{l}.W
%           or net.layers(l).W.
%   acts    cell array, acts{l} is the INPUT of layer l, (n_in x samples): acts{1} is the network's input x, acts{2} the
%           first hidden layer after its activation function. [] where the layer's rule does not look at it (w2, flat).
%           With a struct, acts may be x alone: nn.layers{l}.output is then the input of layer l + 1.
%   out     (n_L x samples), where relevance starts: the output before the softmax, other classes set to 0.
%   R       (n_1 x samples), relevance of the input.
%   layers  cell array one longer than W: layers{1} is R, layers{l} belongs to acts{l}, layers{end} is out.
%   ledger  struct array, ledger(l) says where the relevance of layer l went, each field (1 x samples):
%           incoming = outgoing + bias + stabilizer + padding + dead + batchnorm + masked + rounding
%
% 'rules' is the name of a composite (default 'deep_taylor': z+ above, w^2 at the input, no biases, nothing added to a
% denominator), one rule for all layers, or a cell array with a rule for each layer, from the input up:
%
%   'zero'                            a_i w_ij / z_j, z_j = sum_k a_k w_kj + b_j
%   'epsilon'    {'epsilon', 1e-6}    the same with z_j + eps sign(z_j)
%   'gamma'      {'gamma', 0.25}      contributions of the output's own sign count 1 + gamma times
%   'zplus'                           positive contributions only (alpha-beta with 1 and 0)
%   'alphabeta'  {'alphabeta', 2, 1}  positive ones alpha times, negative ones -beta times; alpha - beta = 1
%   'wsquare'                         w_ij^2 / sum_k w_kj^2, for inputs without bounds
%   'flat'                            equal shares
%   'zbox'       {'zbox', low, high}  inputs within [low, high], numbers or a column each
%   'norm', 'pass'
%
% After a rule's numbers come names and values: {'gamma', 0.5, 'stabilizer', 1e-9}, {'zplus', 'bias', false}.
% Composites: deep_taylor, deep_taylor_box, epsilon, epsilon_plus, epsilon_plus_flat, epsilon_alpha2_beta1,
% epsilon_alpha2_beta1_flat, epsilon_gamma_box, excitation_backprop; bounds of a box: {'deep_taylor_box', low, high}.
%
% 'biases'      cell array, biases{l} has n_out entries or is []; or true: the field b of the struct's layers. Default:
%               no biases.
% 'convention'  whose numerics: 'zennit' (default), 'captum', 'innvestigate', 'lrp_toolbox'.
% 'threads'     at most so many. Default: all processors. The result is the same to the last bit.
%
% Example:
%   W = {[1 -1; 0.5 2], [1 1]};
%   x = [1; 0.5];  hidden = max(W{1} * x, 0);  out = W{2} * hidden;
%   R = pylrp_relevance(W, {x, hidden}, out)                                       % 0.3380 1.6620
%   R = pylrp_relevance(W, {x, hidden}, out, 'rules', {'epsilon', 0.01})           % both layers
%   R = pylrp_relevance(W, {x, hidden}, out, 'rules', {{'zbox', 0, 1}, 'zplus'})   % a rule each
%
% pylrp_make compiles it. lrp_relevance.m computes the same without a compiler; pylrp.relevance in Python.
% See also LRP_RELEVANCE, PYLRP_MAKE.

if nargin < 3
    fail('needs W, acts and out: see help pylrp_relevance');
end
[W, acts, stored] = settle_network(W, acts);
options = settle_options(varargin);
options.biases = settle_biases(options.biases, stored);
rules = settle_rules(options.rules, options.convention, W);
results = cell(1, max(nargout, 1));
try
    [results{:}] = pylrp_mex(W, acts, out, rules, options.biases, options.threads);
catch mistake
    fail_as(mistake);
end
R = results{1};
if nargout > 1, layers = results{2}; end
if nargout > 2, ledger = to_structs(results{3}); end
end


function fail(format, varargin)
error('pylrp:invalid', ['pylrp_relevance: ' format], varargin{:});
end


function fail_as(mistake)
% Octave begins a text with the name of the compiled function, which nobody called.
text = regexprep(mistake.message, '^pylrp_mex: ', '');
if strncmp(mistake.identifier, 'pylrp:', 6)
    error(mistake.identifier, '%s', ['pylrp_relevance: ' text]);
elseif exist('pylrp_mex', 'file') ~= 3
    error('pylrp:notCompiled', ['pylrp_relevance: pylrp_mex is not compiled, or not on the path: run ' ...
                                'pylrp_make and add build/matlab to the path. lrp_relevance needs no compiler.']);
end
rethrow(mistake);
end


function biases = settle_biases(biases, stored)
if iscell(biases), return, end
if ~(islogical(biases) && isscalar(biases))
    fail('biases must be a cell array, or true with a struct, got %s', shown(biases));
end
if biases, biases = stored; else, biases = {}; end
end


function options = settle_options(given)
options = struct('rules', 'deep_taylor', 'biases', {{}}, 'convention', 'zennit', 'threads', 0);
if mod(numel(given), 2) ~= 0
    fail('options come as names and values');
end
known = fieldnames(options)';
for i = 1:2:numel(given)
    name = given{i};
    if ~ischar(name)
        fail('options come as names and values; where a name should be there is %s', shown(name));
    elseif ~any(strcmpi(name, known))
        fail('no option ''%s''%s', name(1:min(end, 60)), hint(name, known));
    end
    options.(lower(name)) = given{i + 1};
end
conventions = {'zennit', 'captum', 'innvestigate', 'lrp_toolbox'};
if ischar(options.convention) && ~any(strcmp(options.convention, conventions))
    fail('no convention ''%s''%s', options.convention, hint(options.convention, conventions));
elseif ~ischar(options.convention)
    fail('convention must be a name, got %s', shown(options.convention));
end
if ~(isnumeric(options.threads) && isscalar(options.threads) && isreal(options.threads))
    fail('threads must be a whole number of at least 1');
end
options.threads = double(options.threads);
end


function [W, acts, biases] = settle_network(W, acts)
% The cells of a struct nn.layers{l} with W, b and output; cells as they are.
biases = {};
if iscell(W) && ~isempty(W) && all(cellfun(@isstruct, W(:)))
    W = struct('layers', {W});                      % nn.layers itself
end
if ~isstruct(W)
    if ~iscell(W)
        fail('W must be a cell array with a matrix a layer, {W1, W2}, or a struct, got %s', shown(W));
    elseif ~iscell(acts)
        fail('acts must be a cell array, the input of each layer, {x, hidden}, got %s', shown(acts));
    end
    return
end
if ~(isscalar(W) && isfield(W, 'layers'))
    fail('the struct has no field layers but %s: pass the weights as a cell array, {W1, W2}', ...
         listed(fieldnames(W)));
end
layers = W.layers;
if isstruct(layers)
    layers = num2cell(layers);
end
if ~iscell(layers) || ~all(cellfun(@(l) isstruct(l) && isscalar(l) && isfield(l, 'W'), layers(:)))
    fail('each of the struct''s layers must be a struct with a field W');
end
layers = layers(:)';
W = cellfun(@(l) l.W, layers, 'UniformOutput', false);
biases = cellfun(@bias_of, layers, 'UniformOutput', false);
if ~iscell(acts)
    hidden = layers(1:end - 1);
    if ~all(cellfun(@(l) isfield(l, 'output'), hidden))
        fail(['the layers have no field output: pass the input of each layer, ' ...
                                '{x, nn.layers{1}.a, ...}']);
    end
    acts = [{acts}, cellfun(@(l) l.output, hidden, 'UniformOutput', false)];
end
end


function b = bias_of(layer)
b = [];
if isfield(layer, 'b')
    b = layer.b;
end
end


function rules = settle_rules(given, convention, W)
% {{name, convention, parameter names, their values, low, high}, ...}, or {composite, convention, low, high}
composites = {'deep_taylor', 'deep_taylor_box', 'epsilon_plus', 'epsilon_plus_flat', 'epsilon_alpha2_beta1', ...
              'epsilon_alpha2_beta1_flat', 'epsilon_gamma_box', 'excitation_backprop'};
if ischar(given)
    given = {given};
end
if ~iscell(given) || isempty(given)
    fail('rules must be a name or a cell array, got %s', shown(given));
end
if ischar(given{1}) && any(strcmpi(given{1}, composites))
    low = [];  high = [];
    if numel(given) == 3
        low = spread(given{2}, W, 1, 'low');  high = spread(given{3}, W, 1, 'high');
    elseif numel(given) ~= 1
        fail('a composite takes low and high at most: {''%s'', low, high}', given{1});
    end
    rules = {given{1}, convention, low, high};
    return
end
% One rule for all layers: a name alone, or followed by a number or by a parameter's name.
one = ischar(given{1}) && (numel(given) == 1 || ~(ischar(given{2}) || iscell(given{2})) || ...
                           (numel(given) >= 3 && ischar(given{2}) && (isnumeric(given{3}) || islogical(given{3}))));
if one
    given = repmat({given}, 1, numel(W));
elseif numel(given) ~= numel(W)
    fail('there are %d weights and %d rules', numel(W), numel(given));
end
rules = cell(1, numel(W));
for l = 1:numel(W)
    rules{l} = settle_rule(given{l}, convention, W, l);
end
end


function rule = settle_rule(given, convention, W, l)
if ischar(given)
    given = {given};
end
if ~(iscell(given) && ~isempty(given) && ischar(given{1}))
    fail('rules{%d} is no rule: write a name or {name, numbers}', l);
end
name = plain(given{1});
if ~is_rule(name)
    known = {'zero', 'epsilon', 'gamma', 'zplus', 'alphabeta', 'wsquare', 'flat', 'zbox', 'norm', 'pass'};
    fail('rules{%d}: no rule ''%s''%s', l, given{1}(1:min(end, 60)), hint(name, [known, {'deep_taylor'}]));
end
count = find([cellfun(@ischar, given(2:end)), true], 1) - 1;      % numbers behind the name
rest = given(count + 2:end);
names = {};  low = [];  high = [];
switch name
    case 'epsilon'
        names = {'epsilon'};
    case 'gamma'
        names = {'gamma'};
    case 'alphabeta'
        names = {'alpha', 'beta'};
    case {'zbox', 'zb'}
        if count ~= 2
            fail('rules{%d}: a z-box has two bounds: {''zbox'', low, high}', l);
        end
        low = spread(given{2}, W, l, 'low');  high = spread(given{3}, W, l, 'high');
        if ~all(isfinite(low)) || ~all(isfinite(high)) || any(low > high)
            fail('rules{%d}: the bounds of a z-box must be finite, and low nowhere above high', l);
        end
end
if isempty(low)
    if count > numel(names)
        fail('rules{%d}: %s takes %d numbers, got %d', l, name, numel(names), count);
    end
    names = names(1:count);
    values = given(2:count + 1);
else
    values = {};
end
if mod(numel(rest), 2) ~= 0 || ~all(cellfun(@ischar, rest(1:2:end)))
    fail('rules{%d}: parameters come as names and values', l);
end
names = [names, rest(1:2:end)];
values = [values, rest(2:2:end)];
if ~all(cellfun(@(v) (isnumeric(v) || islogical(v)) && isscalar(v) && isreal(v), values))
    fail('rules{%d}: a parameter must be a number', l);
end
rule = {given{1}, convention, names, cellfun(@double, values), low, high};
end


function yes = is_rule(name)
yes = any(strcmp(plain(name), {'zero', 'epsilon', 'gamma', 'zplus', 'alphabeta', 'wsquare', 'flat', 'zbox', 'norm', ...
                               'pass', 'z+', 'w2', 'zb'}));
end


function name = plain(name)
name = lower(name(~ismember(name, '_-^ ')));
end


function column = spread(bound, W, l, name)
% A bound as a column of the layer's inputs, in the class of the weights.
if ~(isnumeric(bound) && isreal(bound) && ~issparse(bound))
    fail('%s of layer %d must be numbers, got %s', name, l, shown(bound));
end
if isempty(W) || ~isfloat(W{l})
    fail('W{%d} must be double or single', l);
end
n = size(W{l}, 2);
if isscalar(bound)
    bound = repmat(bound, n, 1);
end
if numel(bound) ~= n
    fail('%s of layer %d has %d entries, the layer has %d inputs', name, l, ...
          numel(bound), n);
end
column = cast(bound(:), class(W{l}));
end


function ledger = to_structs(pages)
% pages: samples x 9 x layers
names = {'incoming', 'outgoing', 'bias', 'stabilizer', 'padding', 'dead', 'batchnorm', 'masked', 'rounding'};
[samples, ~, layers] = size(pages);
parts = permute(num2cell(pages, 1), [2 3 1]);
parts = cellfun(@(v) reshape(v, 1, samples), parts, 'UniformOutput', false);
ledger = reshape(cell2struct(parts, names, 1), 1, layers);
end


function text = shown(value)
if ischar(value)
    text = ['''' value(1:min(end, 60)) ''''];
else
    text = sprintf('%s %s', class(value), regexprep(num2str(size(value)), ' +', 'x'));
end
end


function text = listed(names)
text = sprintf('%s, ', names{:});
text = text(1:end - 2);
if isempty(text), text = 'none at all'; end
end


function text = hint(name, known)
% ': did you mean ...' where a known name is near, and all of them.
text = sprintf('; there are %s', listed(known));
if numel(name) > 40, return, end
[nearest, at] = min(cellfun(@(other) distance(lower(name), other), known));
if nearest <= max(1, numel(name) / 3)
    text = sprintf(': did you mean ''%s''?', known{at});
end
end


function d = distance(a, b)
% Insertions, deletions and replacements from a to b (Levenshtein).
row = 0:numel(b);
for i = 1:numel(a)
    last = row;
    row(1) = i;
    for j = 1:numel(b)
        row(j + 1) = min([last(j + 1) + 1, row(j) + 1, last(j) + (a(i) ~= b(j))]);
    end
end
d = row(end);
end
