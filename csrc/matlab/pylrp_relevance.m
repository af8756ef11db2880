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
% After a rule's numbers come names and values: {'gamma', 0.5, 'stabilizer', 1e-9}, {'zplus', 'bias', false}. Composites:
% deep_taylor, deep_taylor_box, epsilon, epsilon_plus, epsilon_plus_flat, epsilon_alpha2_beta1,
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
    error('pylrp:invalid', 'pylrp_relevance: needs W, acts and out: see help pylrp_relevance');
end
[W, acts, stored] = settle_network(W, acts);
options = settle_options(varargin);
if ~iscell(options.biases)
    if ~(islogical(options.biases) && isscalar(options.biases))
        error('pylrp:invalid', 'pylrp_relevance: biases must be a cell array, or true with a struct');
    elseif options.biases
        options.biases = stored;
    else
        options.biases = {};
    end
end
rules = settle_rules(options.rules, options.convention, W);
switch nargout
    case {0, 1}
        R = pylrp_mex(W, acts, out, rules, options.biases, options.threads);
    case 2
        [R, layers] = pylrp_mex(W, acts, out, rules, options.biases, options.threads);
    otherwise
        [R, layers, pages] = pylrp_mex(W, acts, out, rules, options.biases, options.threads);
        ledger = to_structs(pages);
end
end


function options = settle_options(given)
options = struct('rules', 'deep_taylor', 'biases', {{}}, 'convention', 'zennit', 'threads', 0);
if mod(numel(given), 2) ~= 0
    error('pylrp:invalid', 'pylrp_relevance: options come as names and values');
end
for i = 1:2:numel(given)
    name = given{i};
    if ~(ischar(name) && isfield(options, lower(name)))
        error('pylrp:invalid', 'pylrp_relevance: no option ''%s'': there are rules, biases, convention and threads', ...
              shown(name));
    end
    options.(lower(name)) = given{i + 1};
end
if ~ischar(options.convention)
    error('pylrp:invalid', 'pylrp_relevance: convention must be a name, got %s', shown(options.convention));
end
if ~(isnumeric(options.threads) && isscalar(options.threads) && isreal(options.threads))
    error('pylrp:invalid', 'pylrp_relevance: threads must be a whole number of at least 1');
end
options.threads = double(options.threads);
end


function [W, acts, biases] = settle_network(W, acts)
% The cells of a struct nn.layers{l} with W, b and output; cells as they are.
biases = {};
if ~isstruct(W)
    if ~iscell(acts)
        error('pylrp:invalid', 'pylrp_relevance: acts must be a cell array, one entry a layer, got %s', shown(acts));
    end
    return
end
if ~(isscalar(W) && isfield(W, 'layers'))
    error('pylrp:invalid', 'pylrp_relevance: the struct has no field layers: pass a cell array of weights');
end
layers = W.layers;
if isstruct(layers)
    layers = num2cell(layers);
end
if ~iscell(layers) || ~all(cellfun(@(l) isstruct(l) && isscalar(l) && isfield(l, 'W'), layers(:)))
    error('pylrp:invalid', 'pylrp_relevance: each of the struct''s layers must be a struct with a field W');
end
layers = layers(:)';
W = cellfun(@(l) l.W, layers, 'UniformOutput', false);
biases = cellfun(@bias_of, layers, 'UniformOutput', false);
if ~iscell(acts)
    hidden = layers(1:end - 1);
    if ~all(cellfun(@(l) isfield(l, 'output'), hidden))
        error('pylrp:invalid', ['pylrp_relevance: the layers have no field output: pass the input of each layer, ' ...
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
    error('pylrp:invalid', 'pylrp_relevance: rules must be a name or a cell array, got %s', shown(given));
end
if ischar(given{1}) && any(strcmp(given{1}, composites))
    low = [];  high = [];
    if numel(given) == 3
        low = spread(given{2}, W, 1, 'low');  high = spread(given{3}, W, 1, 'high');
    elseif numel(given) ~= 1
        error('pylrp:invalid', 'pylrp_relevance: a composite takes low and high at most: {''%s'', low, high}', given{1});
    end
    rules = {given{1}, convention, low, high};
    return
end
% One rule for all layers: a name alone, or followed by a number or by a parameter's name.
parameters = {'epsilon', 'gamma', 'alpha', 'beta', 'stabilizer', 'bias'};
one = ischar(given{1}) && (numel(given) == 1 || ~(ischar(given{2}) || iscell(given{2})) || ...
      (numel(given) >= 3 && ischar(given{2}) && any(strcmp(given{2}, parameters)) && ~ischar(given{3}) && ...
       ~iscell(given{3})));
if one
    given = repmat({given}, 1, numel(W));
elseif numel(given) ~= numel(W)
    error('pylrp:invalid', 'pylrp_relevance: there are %d weights and %d rules', numel(W), numel(given));
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
    error('pylrp:invalid', 'pylrp_relevance: rules{%d} is no rule: write a name or {name, numbers}', l);
end
name = lower(given{1}(~ismember(given{1}, '_-^ ')));
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
            error('pylrp:invalid', 'pylrp_relevance: rules{%d}: a z-box has two bounds: {''zbox'', low, high}', l);
        end
        low = spread(given{2}, W, l, 'low');  high = spread(given{3}, W, l, 'high');
end
if isempty(low)
    if count > numel(names)
        error('pylrp:invalid', 'pylrp_relevance: rules{%d}: %s takes %d numbers, got %d', l, name, numel(names), count);
    end
    names = names(1:count);
    values = given(2:count + 1);
else
    values = {};
end
if mod(numel(rest), 2) ~= 0 || ~all(cellfun(@ischar, rest(1:2:end)))
    error('pylrp:invalid', 'pylrp_relevance: rules{%d}: parameters come as names and values', l);
end
names = [names, rest(1:2:end)];
values = [values, rest(2:2:end)];
if ~all(cellfun(@(v) (isnumeric(v) || islogical(v)) && isscalar(v) && isreal(v), values))
    error('pylrp:invalid', 'pylrp_relevance: rules{%d}: a parameter must be a number', l);
end
rule = {given{1}, convention, names, cellfun(@double, values), low, high};
end


function column = spread(bound, W, l, name)
% A bound as a column of the layer's inputs, in the class of the weights.
if ~(isnumeric(bound) && isreal(bound) && ~issparse(bound))
    error('pylrp:invalid', 'pylrp_relevance: %s of layer %d must be numbers, got %s', name, l, shown(bound));
end
if isempty(W) || ~isfloat(W{l})
    error('pylrp:invalid', 'pylrp_relevance: W{%d} must be double or single', l);
end
n = size(W{l}, 2);
if isscalar(bound)
    bound = repmat(bound, n, 1);
end
if numel(bound) ~= n
    error('pylrp:invalid', 'pylrp_relevance: %s of layer %d has %d entries, the layer has %d inputs', name, l, ...
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
    text = value;
else
    text = sprintf('a %s of %s', class(value), strrep(num2str(size(value)), '  ', 'x'));
end
end
